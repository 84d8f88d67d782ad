//! ServiceAccount admission: every pod has an account, and its token in every container.

use serde_json::{Value, json};

use crate::api::names::random_suffix;
use crate::api::object::{as_map, at, default, items, items_mut, map, name, namespace, text};
use crate::api::resource::Resource;
use crate::api::server::Server;
use crate::api::status::{ApiError, about};

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Gives a new pod its ServiceAccount and, unless it or the account doesn't want one, a token.
pub fn admit(server: &Server, resource: &Resource, pod: &mut Value) -> Result<(), ApiError> {
    let spec = map(pod, "spec");
    default(spec, "serviceAccountName", || json!("default"));
    let account = spec["serviceAccountName"].as_str().unwrap_or_default().to_owned();
    spec.insert("serviceAccount".into(), json!(account));
    let pod_namespace = namespace(pod).to_owned();
    let Some(found) = server.find("", "serviceaccounts", &pod_namespace, &account) else {
        let pod_name = name(pod).to_owned();
        let message = format!(
            "pods {pod_name:?} is forbidden: error looking up service account {pod_namespace}/{account}: serviceaccount {account:?} not found"
        );
        return Err(ApiError::new(403, "Forbidden", message).with_details(about(resource, &pod_name)));
    };
    let secrets = items(&found.value, &["imagePullSecrets"]);
    if !secrets.is_empty() && items(pod, &["spec", "imagePullSecrets"]).is_empty() {
        map(pod, "spec").insert("imagePullSecrets".into(), json!(secrets));
    }
    let wish = |object: &Value, path: &[&str]| at(object, path).and_then(Value::as_bool);
    let mounts = wish(pod, &["spec", "automountServiceAccountToken"])
        .or_else(|| wish(&found.value, &["automountServiceAccountToken"]))
        .unwrap_or(true);
    if mounts {
        add_token(pod);
    }
    Ok(())
}

fn add_token(pod: &mut Value) {
    let existing = items(pod, &["spec", "volumes"])
        .iter()
        .map(|volume| text(volume, &["name"]))
        .find(|name| name.starts_with("kube-api-access-"))
        .map(ToOwned::to_owned);
    let volume = existing.clone().unwrap_or_else(|| format!("kube-api-access-{}", random_suffix()));
    let mut mounted = false;
    for list in ["containers", "initContainers"] {
        for container in items_mut(&mut pod["spec"], list) {
            if items(container, &["volumeMounts"]).iter().any(|mount| text(mount, &["mountPath"]) == MOUNT) {
                continue;
            }
            let mounts = as_map(container).entry("volumeMounts").or_insert_with(|| json!([]));
            if let Some(mounts) = mounts.as_array_mut() {
                mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT}));
                mounted = true;
            }
        }
    }
    if existing.is_some() || !mounted {
        return;
    }
    let volumes = map(pod, "spec").entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(json!({"name": volume, "projected": {"defaultMode": 0o644, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}
