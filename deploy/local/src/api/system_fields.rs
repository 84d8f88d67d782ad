//! What the server decides about an object: identity, generation, first status, and when it is gone.

use serde_json::{Map, Value, json};

use super::object::{as_map, finalizers, metadata, name, now, text};
use super::resource::Resource;
use super::writing::Part;
use super::{crd, names};

/// Clears what the server decides, and the status of kinds that have one of their own.
pub fn prepare_new(resource: &Resource, object: &mut Value) {
    let meta = metadata(object);
    for key in [
        "uid",
        "resourceVersion",
        "generation",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "creationTimestamp",
    ] {
        meta.remove(key);
    }
    if resource.status {
        let status = match (resource.group.as_str(), resource.plural.as_str()) {
            // Nodes and volumes come with their status.
            ("", "nodes" | "persistentvolumes") => object.get("status").cloned(),
            ("", "namespaces") => Some(json!({"phase": "Active"})),
            ("", "persistentvolumeclaims") => Some(json!({"phase": "Pending"})),
            ("", "services") => Some(json!({"loadBalancer": {}})),
            ("apiextensions.k8s.io", _) => Some(crd::definition::first_status(object)),
            _ if resource.custom().is_none() => Some(json!({})),
            _ => None,
        };
        super::object::put(as_map(object), "status", status);
    }
}

/// What is decided after admission: it can't be changed by a webhook.
pub fn finish_new(resource: &Resource, object: &mut Value) {
    if resource.is("", "pods") {
        as_map(object).insert("status".into(), json!({"phase": "Pending"}));
    }
    let meta = metadata(object);
    if has_generation(resource) {
        meta.insert("generation".into(), json!(1));
    }
    meta.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    meta.insert("creationTimestamp".into(), json!(now()));
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = |v: &Value| v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty);
        if meta.get(key).is_some_and(empty) {
            meta.remove(key);
        }
    }
}

/// Makes a name from `generateName`, when there is no name.
pub fn generate_name(object: &mut Value) {
    let prefix = text(object, &["metadata", "generateName"]);
    if name(object).is_empty() && !prefix.is_empty() {
        // So that prefix and suffix together are a label.
        let prefix: String = prefix.chars().take(58).collect();
        let full = format!("{prefix}{}", names::random_suffix());
        metadata(object).insert("name".into(), json!(full));
    }
}

/// Whether objects of a resource count the changes of their spec.
pub fn has_generation(resource: &Resource) -> bool {
    if resource.custom().is_some() {
        return true;
    }
    match resource.group.as_str() {
        "" => matches!(resource.plural.as_str(), "pods" | "replicationcontrollers"),
        "apps" => resource.plural != "controllerrevisions",
        "batch" | "networking.k8s.io" | "policy" | "admissionregistration.k8s.io" | "apiextensions.k8s.io" => true,
        _ => false,
    }
}

pub fn advance_generation(resource: &Resource, part: Part, old: &Value, object: &mut Value) {
    if !has_generation(resource) || part == Part::Status {
        return;
    }
    let significant = |value: &Value| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        for key in ["apiVersion", "kind", "metadata"] {
            map.remove(key);
        }
        if resource.status {
            map.remove("status");
        }
        map
    };
    if significant(old) != significant(object) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        metadata(object).insert("generation".into(), json!(generation));
    }
}

/// Whether nothing keeps a terminating object any longer.
pub fn released(resource: &Resource, object: &Value) -> bool {
    let held = resource.is("", "namespaces") && !super::object::items(object, &["spec", "finalizers"]).is_empty();
    let graceful = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    finalizers(object).next().is_none() && !held && !graceful
}
