//! Pods are most of what passes, and large. What the mesh reads of one is taken from the text without copying the rest.

use fsm_api::core as k8s;
use fsm_api::names;

use super::{Account, Pod, SIDECAR_CONTAINER, Unusable, read};
use crate::Json;
use crate::json::Skim;

pub(in crate::catalog) fn pod(json: &Json) -> Result<Pod, Unusable> {
    match Seen::in_passing(json.get()) {
        Some(seen) => Ok(seen.pod()),
        None => whole(json),
    }
}

/// What the mesh reads of a pod, as it stands in the text.
#[derive(Default)]
struct Seen<'a> {
    namespace: Option<&'a str>,
    account: Option<&'a str>,
    node: Option<&'a str>,
    phase: Option<&'a str>,
    labels: bool,
    proxy_uuid: bool,
    ignore: bool,
    containers: bool,
    init_containers: bool,
    sidecar: bool,
}

impl<'a> Seen<'a> {
    /// None if it isn't written as API servers write: whether it is a pod is for a parser to say then.
    fn in_passing(text: &'a str) -> Option<Self> {
        let mut seen = Self::default();
        let mut parts = [false; 3];
        let mut skim = Skim::of(text);
        skim.object(|key, value| {
            let part = match key {
                "metadata" => 0,
                "spec" => 1,
                "status" => 2,
                _ => return value.skip(),
            };
            first(&mut parts[part])?;
            value.object(|key, value| match (part, key) {
                (0, "namespace") => text_of(value, &mut seen.namespace),
                (0, "labels") => seen.labels(value),
                (1, "serviceAccountName") => text_of(value, &mut seen.account),
                (1, "nodeName") => text_of(value, &mut seen.node),
                (1, "containers") => first(&mut seen.containers).and_then(|()| seen.containers(value)),
                (1, "initContainers") => first(&mut seen.init_containers).and_then(|()| seen.containers(value)),
                (2, "phase") => text_of(value, &mut seen.phase),
                _ => value.skip(),
            })
        })?;
        skim.end()?;
        Some(seen)
    }

    fn labels(&mut self, value: &mut Skim<'a>) -> Option<()> {
        first(&mut self.labels)?;
        if value.null()? {
            return Some(());
        }
        value.object(|key, value| {
            self.proxy_uuid |= key == names::PROXY_UUID;
            self.ignore |= key == names::IGNORE;
            value.skip()
        })
    }

    fn containers(&mut self, value: &mut Skim<'a>) -> Option<()> {
        if value.null()? {
            return Some(());
        }
        value.array(|container| {
            let mut name = None;
            container.object(|key, value| match key {
                "name" => text_of(value, &mut name),
                _ => value.skip(),
            })?;
            self.sidecar |= name == Some(SIDECAR_CONTAINER);
            Some(())
        })
    }

    fn pod(self) -> Pod {
        let account = self.account.filter(|name| !name.is_empty()).unwrap_or("default");
        Pod {
            account: Account::new(self.namespace.unwrap_or_default(), account),
            node: self.node.unwrap_or_default().to_owned(),
            has_proxy: self.proxy_uuid && !self.ignore && self.sidecar,
            finished: matches!(self.phase, Some("Succeeded" | "Failed")),
        }
    }
}

/// A member that is there twice is nothing to pass over.
fn first(seen: &mut bool) -> Option<()> {
    (!std::mem::replace(seen, true)).then_some(())
}

fn text_of<'a>(value: &mut Skim<'a>, place: &mut Option<&'a str>) -> Option<()> {
    place.replace(value.string()?).is_none().then_some(())
}

fn whole(json: &Json) -> Result<Pod, Unusable> {
    let object: k8s::Pod = read(json)?;
    let mut containers = object.spec.containers.iter().chain(&object.spec.init_containers);
    Ok(Pod {
        account: Account::new(&object.metadata.namespace, object.service_account()),
        node: object.spec.node_name.clone(),
        has_proxy: object.metadata.label(names::PROXY_UUID).is_some()
            && object.metadata.label(names::IGNORE).is_none()
            && containers.any(|container| container.name == SIDECAR_CONTAINER),
        finished: object.is_finished(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_read_in_passing_is_the_pod_read_as_a_whole() {
        let containers = [json!([{ "name": "app" }]), json!([{ "name": "app" }, { "name": "sidecar" }]), Value::Null];
        let labels = [
            json!({ "fsm-proxy-uuid": "x" }),
            json!({ "fsm-proxy-uuid": "x", "flomesh.io/ignore": "true" }),
            json!({ "app": "a" }),
            Value::Null,
        ];
        for containers in &containers {
            for labels in &labels {
                for (account, phase) in [("web", "Running"), ("", "Succeeded"), ("b\u{e9}", "Failed")] {
                    let pod = json!({
                        "metadata": { "name": "p", "namespace": "n", "labels": labels,
                            "managedFields": [{ "k:{\"uid\":\"x}\\\"}": {} }] },
                        "spec": { "serviceAccountName": account, "nodeName": "node", "initContainers": containers,
                            "containers": [{ "name": "app", "ports": [{ "containerPort": 80 }] }] },
                        "status": { "phase": phase, "conditions": null },
                    });
                    let json = Json::from(&pod);
                    let seen = Seen::in_passing(json.get()).expect("this is how API servers write");
                    assert_eq!(Ok(seen.pod()), whole(&json), "{pod}");
                }
            }
        }
        assert_eq!(pod(&Json::from(&json!({}))), whole(&Json::from(&json!({}))));
    }

    #[test]
    fn what_cannot_be_read_in_passing_is_read_as_a_whole() {
        let escaped = json!({ "metadata": { "namespace": "n" }, "spec": { "serviceAccountName": "a\nb" } });
        assert_eq!(pod(&Json::from(&escaped)).unwrap().account, Account::new("n", "a\nb"));
        for text in ["{\"spec\":7}", "{\"spec\":", "{\"spec\":{},\"spec\":{}}", "{\"status\":{\"phase\":1}}", "{} {}"] {
            assert!(pod(&Json::from(text)).is_err(), "{text}");
        }
    }
}
