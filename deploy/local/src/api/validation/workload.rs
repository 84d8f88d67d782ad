//! Rules of pods and of the kinds that make pods.

use serde_json::Value;

use super::container;
use crate::api::object::{at, items, text};
use crate::api::selector::LabelSelector;
use crate::api::status::FieldError;

/// A pod's spec, at a path of an object. Images may be missing in a template only if `images` is false.
pub fn pod_spec(spec: &Value, path: &str, images: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let containers = items(spec, &["containers"]);
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    errors.extend(container::volumes(spec, path));
    errors.extend(container::containers(spec, path, images));
    if !matches!(text(spec, &["restartPolicy"]), "Always" | "OnFailure" | "Never") {
        let supported = ["Always", "OnFailure", "Never"];
        errors.push(FieldError::unsupported(format!("{path}.restartPolicy"), &spec["restartPolicy"], &supported));
    }
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    if !policies.contains(&text(spec, &["dnsPolicy"])) {
        errors.push(FieldError::unsupported(format!("{path}.dnsPolicy"), &spec["dnsPolicy"], &policies));
    }
    errors
}

/// A Deployment, ReplicaSet, StatefulSet or DaemonSet.
pub fn workload(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    if spec["replicas"].as_i64().is_some_and(|n| n < 0) {
        errors.push(FieldError::invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    let selector = LabelSelector::from_object(&spec["selector"]);
    if selector.is_empty() {
        errors.push(FieldError::required("spec.selector", ""));
    } else if !selector.matches(&spec["template"]) {
        let labels = at(spec, &["template", "metadata", "labels"]).cloned().unwrap_or(Value::Null);
        errors.push(FieldError::invalid(
            "spec.template.metadata.labels",
            &labels,
            "`selector` does not match template `labels`",
        ));
    }
    let template = &spec["template"]["spec"];
    errors.extend(pod_spec(template, "spec.template.spec", true));
    if text(template, &["restartPolicy"]) != "Always" && errors.is_empty() {
        let field = "spec.template.spec.restartPolicy";
        errors.push(FieldError::unsupported(field, &template["restartPolicy"], &["Always"]));
    }
    errors
}

pub fn job(object: &Value) -> Vec<FieldError> {
    let template = &object["spec"]["template"]["spec"];
    let mut errors = pod_spec(template, "spec.template.spec", true);
    if !matches!(text(template, &["restartPolicy"]), "OnFailure" | "Never") {
        let field = "spec.template.spec.restartPolicy";
        errors.push(FieldError::unsupported(field, &template["restartPolicy"], &["OnFailure", "Never"]));
    }
    errors
}

/// Of a pod's spec only images and a few other fields can change.
pub fn pod_changes(pod: &Value, old: &Value) -> Vec<FieldError> {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            for container in crate::api::object::items_mut(&mut spec, list) {
                container["image"] = Value::Null;
            }
        }
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "ephemeralContainers",
            "schedulingGates",
        ] {
            if let Some(map) = spec.as_object_mut() {
                map.remove(field);
            }
        }
        spec
    };
    // Binding is the one way to a node name.
    let (mut now, before) = (fixed(pod), fixed(old));
    if before.get("nodeName").is_none()
        && let Some(map) = now.as_object_mut()
    {
        map.remove("nodeName");
    }
    if now == before {
        return Vec::new();
    }
    let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    vec![FieldError::forbidden("spec", detail)]
}

pub fn stateful_set_changes(object: &Value, old: &Value) -> Vec<FieldError> {
    let fixed = |object: &Value| {
        let mut spec = object["spec"].as_object().cloned().unwrap_or_default();
        let free = [
            "replicas",
            "ordinals",
            "template",
            "updateStrategy",
            "revisionHistoryLimit",
            "persistentVolumeClaimRetentionPolicy",
            "minReadySeconds",
        ];
        spec.retain(|key, _| !free.contains(&key.as_str()));
        spec
    };
    if fixed(object) == fixed(old) {
        return Vec::new();
    }
    let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    vec![FieldError::forbidden("spec", detail)]
}
