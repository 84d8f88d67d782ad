//! Pods are most of what passes, and large. What the mesh reads of one is taken from the text without copying the rest.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use fsm_api::names;

use super::{Account, Pod, SIDECAR_CONTAINER, Unusable};
use crate::Json;

#[derive(Deserialize)]
struct PodJson<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(default)]
    labels: Option<Labels>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default)]
    service_account_name: Cow<'a, str>,
    #[serde(borrow, default)]
    node_name: Cow<'a, str>,
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    init_containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    phase: Cow<'a, str>,
}

/// Which of the labels that matter are there.
#[derive(Default)]
struct Labels {
    proxy_uuid: bool,
    ignore: bool,
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Labels;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                    labels.proxy_uuid |= key == names::PROXY_UUID;
                    labels.ignore |= key == names::IGNORE;
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(labels)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

pub(in crate::catalog) fn pod(json: &Json) -> Result<Pod, Unusable> {
    let PodJson { metadata, spec, status } = serde_json::from_str(json.get()).map_err(|error| error.to_string())?;
    let labels = metadata.labels.unwrap_or_default();
    let mut containers = spec.containers.iter().chain(&spec.init_containers).flatten();
    let account = if spec.service_account_name.is_empty() { "default" } else { &*spec.service_account_name };
    Ok(Pod {
        account: Account::new(metadata.namespace, account),
        node: spec.node_name.into_owned(),
        has_proxy: labels.proxy_uuid
            && !labels.ignore
            && containers.any(|container| container.name == SIDECAR_CONTAINER),
        finished: matches!(&*status.phase, "Succeeded" | "Failed"),
    })
}

#[cfg(test)]
mod tests {
    use fsm_api::core as k8s;
    use serde_json::{Value, json};

    use super::*;

    /// What follows from the whole object.
    fn of_the_whole(object: &Value) -> Pod {
        let object: k8s::Pod = serde_json::from_value(object.clone()).unwrap();
        let mut containers = object.spec.containers.iter().chain(&object.spec.init_containers);
        Pod {
            account: Account::new(&object.metadata.namespace, object.service_account()),
            node: object.spec.node_name.clone(),
            has_proxy: object.metadata.label(names::PROXY_UUID).is_some()
                && object.metadata.label(names::IGNORE).is_none()
                && containers.any(|container| container.name == SIDECAR_CONTAINER),
            finished: object.is_finished(),
        }
    }

    #[test]
    fn a_pod_read_in_passing_is_the_pod_read_as_a_whole() {
        let containers = [json!([{ "name": "app" }]), json!([{ "name": "app" }, { "name": "sidecar" }]), Value::Null];
        let labels = [
            json!({ "fsm-proxy-uuid": "x" }),
            json!({ "fsm-proxy-uuid": "x", "flomesh.io/ignore": "true" }),
            json!({ "app": "a\"b\\u0041" }),
            Value::Null,
        ];
        for containers in &containers {
            for labels in &labels {
                for (account, phase) in [("web", "Running"), ("", "Succeeded"), ("a\u{e9}\n", "Failed")] {
                    let pod = json!({
                        "metadata": { "name": "p", "namespace": "n", "labels": labels, "managedFields": [{ "f:x": {} }] },
                        "spec": { "serviceAccountName": account, "nodeName": "node", "initContainers": containers,
                            "containers": [{ "name": "app", "ports": [{ "containerPort": 80 }] }] },
                        "status": { "phase": phase, "conditions": null },
                    });
                    assert_eq!(super::pod(&Json::from(&pod)).unwrap(), of_the_whole(&pod), "{pod}");
                }
            }
        }
        assert_eq!(super::pod(&Json::from(&json!({}))).unwrap(), of_the_whole(&json!({})));
        assert!(super::pod(&Json::from(&json!({ "spec": 7 }))).is_err());
        assert!(super::pod(&Json::from("{\"spec\":")).is_err());
    }
}
