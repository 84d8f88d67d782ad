//! Pods are most of what passes, and large. What the mesh reads of one is taken from the text without copying the rest, and what stands
//! in its `spec` is kept from before if that is written as before: hardly anything in it can change.

use std::sync::{Arc, LazyLock};

use fsm_api::core as k8s;
use fsm_api::names;
use memchr::memmem::Finder;

use super::{Account, SIDECAR_CONTAINER, Unusable, read};
use crate::Json;
use crate::json::Skim;

/// Nothing within a status is called like that.
static PHASE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"phase\":"));
/// What follows the metadata.
static SPEC: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("},\"spec\":"));

#[derive(Clone, Debug)]
pub struct Pod {
    pub account: Account,
    pub node: Arc<str>,
    /// Has a proxy's id and a sidecar container.
    pub has_proxy: bool,
    /// Has ended for good.
    pub finished: bool,
    /// None if it was not found in the object as it stands.
    spec: Option<Spec>,
}

/// The `spec` of a pod.
#[derive(Clone, Debug)]
struct Spec {
    /// As it stands in the object.
    text: Arc<str>,
    /// One of the containers is called like that.
    sidecar: bool,
}

impl Pod {
    /// All that others may be told of it.
    pub fn seen_by_others(&self) -> (&Account, bool, bool) {
        (&self.account, self.has_proxy, self.finished)
    }
}

impl PartialEq for Pod {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node && self.seen_by_others() == other.seen_by_others()
    }
}

impl Eq for Pod {}

/// `own` is its namespace, and `before` its edition before; none if the pod is as that.
pub(in crate::catalog) fn pod(json: &Json, own: &str, before: Option<&Pod>) -> Result<Option<Pod>, Unusable> {
    match Seen::in_passing(json.get(), before) {
        Some(seen) if before.is_some_and(|before| seen.shows(before)) => Ok(None),
        Some(seen) => Ok(Some(seen.pod(own, before))),
        None => whole(json, own).map(Some),
    }
}

/// What the mesh reads of a pod, as it stands in the text.
#[derive(Default)]
struct Seen<'a> {
    account: Option<&'a str>,
    node: Option<&'a str>,
    phase: Option<&'a str>,
    labels: bool,
    proxy_uuid: bool,
    ignore: bool,
    containers: bool,
    init_containers: bool,
    sidecar: bool,
    /// Its `spec`, if that is not as before.
    spec: Option<&'a str>,
    /// Its `spec` stands there as before.
    same_spec: bool,
}

impl<'a> Seen<'a> {
    /// None if it isn't written as API servers write: whether it is a pod is for a parser to say then.
    fn in_passing(text: &'a str, before: Option<&'a Pod>) -> Option<Self> {
        let (mut seen, mut parts) = (Self::default(), [false; 3]);
        let mut skim = Skim::of(text);
        let has_all = skim.until(|key, value| match key {
            "metadata" => {
                first(&mut parts[0])?;
                let has_labels = value.until(|key, value| match key {
                    "labels" => seen.labels(value).map(|()| true),
                    _ => value.skip().map(|()| false),
                })?;
                if has_labels {
                    value.leave_for(&SPEC)?;
                }
                Some(false)
            }
            "spec" => {
                first(&mut parts[1])?;
                seen.spec(value, before).map(|()| false)
            }
            "status" => {
                first(&mut parts[2])?;
                // Where the rest is known, nothing is of interest but the phase.
                if parts[0] && parts[1] && value.jump_to(&PHASE) {
                    return text_of(value, &mut seen.phase).map(|()| true);
                }
                value.object(|key, value| match key {
                    "phase" => text_of(value, &mut seen.phase),
                    _ => value.skip(),
                })?;
                Some(false)
            }
            _ => value.skip().map(|()| false),
        })?;
        if !has_all {
            skim.end()?;
        }
        Some(seen)
    }

    fn spec(&mut self, value: &mut Skim<'a>, before: Option<&'a Pod>) -> Option<()> {
        if let Some((pod, spec)) = before.and_then(|pod| Some((pod, pod.spec.as_ref()?)))
            && value.same(&spec.text)?
        {
            (self.account, self.node, self.sidecar) = (Some(pod.account.name()), Some(&*pod.node), spec.sidecar);
            self.same_spec = true;
            return Some(());
        }
        let text = value.extent(|value| {
            value.object(|key, value| match key {
                "serviceAccountName" => text_of(value, &mut self.account),
                "nodeName" => text_of(value, &mut self.node),
                "containers" => first(&mut self.containers).and_then(|()| self.containers(value)),
                "initContainers" => first(&mut self.init_containers).and_then(|()| self.containers(value)),
                _ => value.skip(),
            })
        })?;
        self.spec = Some(text);
        Some(())
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

    fn has_proxy(&self) -> bool {
        self.proxy_uuid && !self.ignore && self.sidecar
    }

    fn finished(&self) -> bool {
        matches!(self.phase, Some("Succeeded" | "Failed"))
    }

    /// Whether there is nothing else to see than of this pod.
    fn shows(&self, pod: &Pod) -> bool {
        self.same_spec && (self.has_proxy(), self.finished()) == (pod.has_proxy, pod.finished)
    }

    fn pod(self, own: &str, before: Option<&Pod>) -> Pod {
        let account = self.account.filter(|name| !name.is_empty()).unwrap_or("default");
        let node = self.node.unwrap_or_default();
        let same_account = |pod: &&Pod| pod.account.name() == account;
        Pod {
            account: match before.filter(same_account) {
                Some(before) => before.account.clone(),
                None => Account::new(own, account),
            },
            node: match before.filter(|before| *before.node == *node) {
                Some(before) => before.node.clone(),
                None => node.into(),
            },
            has_proxy: self.has_proxy(),
            finished: self.finished(),
            spec: match self.spec {
                Some(text) => Some(Spec { text: text.into(), sidecar: self.sidecar }),
                None => before.filter(|_| self.same_spec).and_then(|before| before.spec.clone()),
            },
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

fn whole(json: &Json, own: &str) -> Result<Pod, Unusable> {
    let object: k8s::Pod = read(json)?;
    let mut containers = object.spec.containers.iter().chain(&object.spec.init_containers);
    Ok(Pod {
        account: Account::new(own, object.service_account()),
        node: object.spec.node_name.as_str().into(),
        has_proxy: object.metadata.label(names::PROXY_UUID).is_some()
            && object.metadata.label(names::IGNORE).is_none()
            && containers.any(|container| container.name == SIDECAR_CONTAINER),
        finished: object.is_finished(),
        spec: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_read_in_passing_is_the_pod_read_as_a_whole() {
        let mut before: Option<Pod> = None;
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
                    let seen = Seen::in_passing(json.get(), None).expect("this is how API servers write");
                    let alone = seen.pod("n", None);
                    assert_eq!(Ok(&alone), whole(&json, "n").as_ref(), "{pod}");
                    // From edition to edition, with another spec and with the same.
                    for again in [false, true] {
                        let after = super::pod(&json, "n", before.as_ref()).unwrap();
                        assert_eq!(after.is_none(), again, "{pod}");
                        let after = after.or(before).unwrap();
                        assert_eq!(after, alone, "{pod}");
                        let [one, other] = [&after, &alone].map(|pod| pod.spec.as_ref().unwrap());
                        assert_eq!((&one.text, one.sidecar), (&other.text, other.sidecar));
                        before = Some(after);
                    }
                }
            }
        }
        let empty = Json::from(&json!({}));
        assert_eq!(pod(&empty, "n", None), whole(&empty, "n").map(Some));
    }

    #[test]
    fn what_cannot_be_read_in_passing_is_read_as_a_whole() {
        let escaped = json!({ "metadata": { "namespace": "n" }, "spec": { "serviceAccountName": "a\nb" } });
        assert_eq!(pod(&Json::from(&escaped), "n", None).unwrap().unwrap().account, Account::new("n", "a\nb"));
        for text in ["{\"spec\":7}", "{\"spec\":", "{\"spec\":{},\"spec\":{}}", "{\"status\":{\"phase\":1}}", "{} {}"] {
            assert!(pod(&Json::from(text), "n", None).is_err(), "{text}");
        }
    }
}
