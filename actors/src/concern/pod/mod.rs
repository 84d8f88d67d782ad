//! What a pod with a sidecar looks like: the decision of the injection webhook, and its patch. Pure.

mod annotations;
mod probes;
mod resources;
mod sidecar;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fsm_api::names;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::injection::Injection;
use annotations::{Annotations, Invalid};

/// What becomes of a new pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is none of the mesh's business.
    Skip { reason: String },
    /// It gets a sidecar.
    Patch { operations: Vec<PatchOp>, warnings: Vec<String> },
    /// It asks for something that can't be.
    Refuse { message: String },
}

/// One operation of a JSON patch (RFC 6902). `add` on an existing member replaces it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum PatchOp {
    Add { path: String, value: Value },
}

/// Namespaces that never take part.
const SYSTEM_NAMESPACES: [&str; 2] = ["kube-system", "kube-public"];

/// Decides about a new pod in `namespace`. `uuid` becomes the proxy's id; it has to be new for every pod.
pub fn decide_injection(state: &Injection, namespace: &str, pod: &Value, uuid: &str) -> Verdict {
    match decide(state, namespace, pod, uuid) {
        Ok(verdict) => verdict,
        Err(Invalid(message)) => Verdict::Refuse { message },
    }
}

fn decide(state: &Injection, namespace: &str, pod: &Value, uuid: &str) -> Result<Verdict, Invalid> {
    let skip = |reason: String| Ok(Verdict::Skip { reason });
    let started = &state.mesh().started;
    if SYSTEM_NAMESPACES.contains(&namespace) || namespace == started.mesh_namespace {
        return skip(format!("namespace {namespace} belongs to the system"));
    }
    if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return skip("the pod uses the network of its node".to_owned());
    }
    if pod.pointer("/metadata/labels").and_then(|labels| labels.get(names::IGNORE)).is_some() {
        return skip(format!("the pod has the label {}", names::IGNORE));
    }
    if !state.monitors(namespace) {
        return skip(format!(
            "namespace {namespace} does not have the label {}={}",
            names::MONITORED_BY,
            started.mesh_name
        ));
    }
    let of_namespace = state.namespace(namespace).map(|namespace| namespace.annotations.clone()).unwrap_or_default();
    let annotations = Annotations::new(text_map(pod.pointer("/metadata/annotations")), of_namespace);
    match annotations.switch(names::SIDECAR_INJECTION)? {
        Some(true) => {}
        Some(false) => return skip(format!("{} says so", names::SIDECAR_INJECTION)),
        None => return skip(format!("neither pod nor namespace has the annotation {}", names::SIDECAR_INJECTION)),
    }
    let injected = inject(state, pod, &annotations, uuid)?;
    Ok(Verdict::Patch { operations: operations(pod, &injected), warnings: annotations.without_effect()? })
}

/// The pod with its sidecar.
fn inject(state: &Injection, pod: &Value, annotations: &Annotations, uuid: &str) -> Result<Value, Invalid> {
    let mut injected = pod.clone();
    let mesh = state.mesh();
    set(&mut injected, &["metadata", "labels", names::PROXY_UUID], json!(uuid));
    for (name, list) in annotations.exclusions(mesh.traffic())? {
        set(&mut injected, &["metadata", "annotations", name], json!(list));
    }
    if annotations.switch(names::DNS_CAPTURE)?.unwrap_or(mesh.config.sidecar.local_dns_proxy.enable) {
        set(&mut injected, &["metadata", "annotations", names::DNS_CAPTURE], json!("enabled"));
    }
    if annotations.of_namespace(names::METRICS)? == Some(true) {
        for (name, value) in sidecar::SCRAPING {
            set(&mut injected, &["metadata", "annotations", name], json!(value));
        }
    }
    let relays = probes::rewrite(&mut injected)?;
    let container = sidecar::container(mesh, pod, annotations, &relays)?;
    put_first(&mut injected, "initContainers", container);
    for volume in sidecar::volumes() {
        put_last(&mut injected, "volumes", volume);
    }
    Ok(injected)
}

/// The patch from one pod to the other, by the members that an injection changes.
fn operations(before: &Value, after: &Value) -> Vec<PatchOp> {
    ["/metadata/labels", "/metadata/annotations", "/spec/containers", "/spec/initContainers", "/spec/volumes"]
        .into_iter()
        .filter(|path| before.pointer(path) != after.pointer(path))
        .filter_map(|path| Some(PatchOp::Add { path: path.to_owned(), value: after.pointer(path)?.clone() }))
        .collect()
}

/// Sets a member, with the objects on the way to it.
fn set(object: &mut Value, path: &[&str], value: Value) {
    let mut place = object;
    for member in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[*member];
    }
    *place = value;
}

/// The list `name` of the pod's spec, without an element of the same name as `element`: a copy of an injected pod
/// (`kubectl debug --copy-to`) brings an old one along.
fn list_without<'a>(pod: &'a mut Value, name: &str, element: &Value) -> &'a mut Vec<Value> {
    let list = &mut pod["spec"][name];
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    let list = list.as_array_mut().expect("made an array above");
    list.retain(|other| other["name"] != element["name"]);
    list
}

fn put_first(pod: &mut Value, name: &str, element: Value) {
    list_without(pod, name, &element).insert(0, element);
}

fn put_last(pod: &mut Value, name: &str, element: Value) {
    list_without(pod, name, &element).push(element);
}

fn text_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let members = value.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
