//! The life of namespaces: what every namespace has, and how one goes.

use std::sync::Arc;

use serde_json::{Value, json};

use super::database::{Expect, Key};
use super::deleting::Deletion;
use super::object::{is_terminating, items, metadata, now, text};
use super::options::{DeleteOptions, Propagation, WriteOptions};
use super::packed::Object;
use super::path::Target;
use super::server::Server;
use super::users::User;
use super::writing::Writing;

/// The namespaces a cluster begins with.
pub const INITIAL: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const ROOT_CA: &str = "kube-root-ca.crt";

/// Makes an object that belongs to the cluster itself, unless it is there.
pub fn own(server: &Server, group: &str, plural: &str, key: &Key, mut object: Value) {
    let meta = metadata(&mut object);
    meta.insert("name".into(), json!(key.name));
    if !key.namespace.is_empty() {
        meta.insert("namespace".into(), json!(key.namespace));
    }
    meta.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    meta.insert("creationTimestamp".into(), json!(now()));
    // If it is there already, that is as good.
    let _ = server.database.store(&format!("{group}/{plural}").into(), key, Expect::Absent, object);
}

/// Makes what every cluster begins with, as far as it is missing.
pub fn found_cluster(server: &Server, port: u16) {
    for namespace in INITIAL {
        let labels = json!({"kubernetes.io/metadata.name": namespace});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": labels},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        own(server, "", "namespaces", &Key::new("", namespace), object);
    }
    for object in server.all("", "namespaces", None) {
        furnish(server, super::object::name(&object.value));
    }
    let address = super::services::KUBERNETES.to_string();
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": address, "clusterIPs": [address], "type": "ClusterIP", "sessionAffinity": "None",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]},
        "status": {"loadBalancer": {}}});
    own(server, "", "services", &Key::new("default", "kubernetes"), service);
}

/// Gives a namespace its ServiceAccount and the cluster's CA certificate. A terminating one gets nothing.
pub fn furnish(server: &Server, namespace: &str) {
    let alive = server.find("", "namespaces", "", namespace).is_some_and(|n| !is_terminating(&n.value));
    if !alive {
        return;
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {}});
    own(server, "", "serviceaccounts", &Key::new(namespace, "default"), account);
    let text = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
    let bundle = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"annotations": {"kubernetes.io/description": text}},
        "data": {"ca.crt": server.authority.certificate_pem}});
    own(server, "", "configmaps", &Key::new(namespace, ROOT_CA), bundle);
}

/// Puts back what every namespace has, after something of it was deleted.
pub fn restore(server: &Server, storage: &str, key: &Key) {
    let belongs = matches!((storage, key.name.as_str()), ("/serviceaccounts", "default") | ("/configmaps", ROOT_CA));
    if belongs {
        furnish(server, &key.namespace);
    }
}

/// Deletes what is in a terminating namespace, and the namespace itself once it is empty.
pub async fn empty(server: &Arc<Server>, namespace: &str) {
    let Some(found) = server.find("", "namespaces", "", namespace) else { return };
    if !is_terminating(&found.value) {
        return;
    }
    let user = User::controller("namespace-controller");
    let mut remaining = 0_usize;
    for resource in server.registry().stored().filter(|r| r.namespaced) {
        let target = Target {
            resource: resource.clone(),
            namespace: Some(namespace.into()),
            name: None,
            subresource: None,
            watched: false,
        };
        let (_, objects) = server.database.list(&resource.storage, Some(namespace));
        for (key, _) in objects {
            let mut writing = Writing {
                server,
                target: &target,
                user: &user,
                options: WriteOptions::internal("namespace-controller"),
                warnings: Vec::new(),
            };
            let options = DeleteOptions::internal(Propagation::Background);
            match writing.delete(&key.name, &options).await {
                Ok(Deletion::Gone(_)) => {}
                Err(error) if error.code == 404 => {}
                Ok(Deletion::Waiting(_)) | Err(_) => remaining += 1,
            }
        }
    }
    if remaining == 0 {
        finalize(server, namespace, &found).await;
    }
}

async fn finalize(server: &Server, namespace: &str, found: &Object) {
    let storage = "/namespaces".into();
    let key = Key::new("", namespace);
    let mut last = found.value.clone();
    super::object::map(&mut last, "spec").remove("finalizers");
    let more = !items(&last, &["metadata", "finalizers"]).is_empty();
    let result = if more {
        server.database.store(&storage, &key, Expect::Version(found.version), last)
    } else {
        server.database.remove(&storage, &key, found.version, last)
    };
    // Changed meanwhile: the change itself brings us back here.
    if let Ok((_, durable)) = result
        && let Err(error) = durable.wait().await
    {
        tracing::warn!(namespace, error, "the end of a namespace isn't in the journal");
    }
}

/// Whether an object is a namespace on its way out.
pub fn is_leaving(object: &Value) -> bool {
    text(object, &["kind"]) == "Namespace" && is_terminating(object)
}
