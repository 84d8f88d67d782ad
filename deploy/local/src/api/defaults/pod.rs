//! Defaults of pods and pod templates.

use serde_json::{Value, json};

use crate::api::object::{as_map, default, items_mut, map, text};

/// A pod of its own.
pub fn fill_pod(pod: &mut Value) {
    map(pod, "spec");
    fill_spec(&mut pod["spec"]);
    let quality = quality_class(&pod["spec"]);
    let spec = map(pod, "spec");
    default(spec, "enableServiceLinks", || json!(true));
    default(spec, "preemptionPolicy", || json!("PreemptLowerPriority"));
    default(spec, "priority", || json!(0));
    // A pod that is not stored yet has no status.
    if pod["status"].get("phase").is_some() {
        default(map(pod, "status"), "qosClass", || json!(quality));
    }
}

/// The `template` of a workload, or a PodTemplate.
pub fn fill_template(owner: &mut Value) {
    if owner.get("template").is_none() {
        return;
    }
    let template = map(owner, "template");
    let Some(spec) = template.get_mut("spec") else { return };
    fill_spec(spec);
}

/// A pod's `spec`.
fn fill_spec(spec: &mut Value) {
    let fields = as_map(spec);
    default(fields, "restartPolicy", || json!("Always"));
    default(fields, "terminationGracePeriodSeconds", || json!(30));
    default(fields, "dnsPolicy", || json!("ClusterFirst"));
    default(fields, "securityContext", || json!({}));
    default(fields, "schedulerName", || json!("default-scheduler"));
    let account = fields.get("serviceAccountName").or_else(|| fields.get("serviceAccount")).cloned();
    if let Some(account) = account {
        fields.insert("serviceAccount".into(), account.clone());
        fields.insert("serviceAccountName".into(), account);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        items_mut(spec, list).for_each(fill_container);
    }
    items_mut(spec, "volumes").for_each(fill_volume);
}

fn fill_container(container: &mut Value) {
    let image = text(container, &["image"]).to_owned();
    let fields = as_map(container);
    default(fields, "terminationMessagePath", || json!("/dev/termination-log"));
    default(fields, "terminationMessagePolicy", || json!("File"));
    default(fields, "imagePullPolicy", || {
        let tag = image.rsplit('/').next().unwrap_or_default();
        let latest = !tag.contains('@') && (!tag.contains(':') || tag.ends_with(":latest"));
        json!(if latest { "Always" } else { "IfNotPresent" })
    });
    default(fields, "resources", || json!({}));
    for port in items_mut(container, "ports") {
        default(as_map(port), "protocol", || json!("TCP"));
    }
    for variable in items_mut(container, "env") {
        if let Some(reference) = variable.pointer_mut("/valueFrom/fieldRef") {
            default(as_map(reference), "apiVersion", || json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            fill_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(action) = container.pointer_mut(&format!("/lifecycle/{hook}/httpGet")) {
            fill_http_get(action);
        }
    }
}

fn fill_probe(probe: &mut Value) {
    let fields = as_map(probe);
    default(fields, "timeoutSeconds", || json!(1));
    default(fields, "periodSeconds", || json!(10));
    default(fields, "successThreshold", || json!(1));
    default(fields, "failureThreshold", || json!(3));
    if let Some(action) = fields.get_mut("httpGet") {
        fill_http_get(action);
    }
    if let Some(action) = fields.get_mut("grpc") {
        default(as_map(action), "service", || json!(""));
    }
}

fn fill_http_get(action: &mut Value) {
    let fields = as_map(action);
    default(fields, "path", || json!("/"));
    default(fields, "scheme", || json!("HTTP"));
}

fn fill_volume(volume: &mut Value) {
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            default(as_map(source), "defaultMode", || json!(0o644));
            for part in items_mut(source, "sources") {
                if let Some(token) = part.get_mut("serviceAccountToken") {
                    default(as_map(token), "expirationSeconds", || json!(3600));
                }
                if let Some(fields) = part.get_mut("downwardAPI") {
                    items_mut(fields, "items").for_each(fill_downward_item);
                }
            }
        }
    }
    if let Some(source) = volume.get_mut("downwardAPI") {
        items_mut(source, "items").for_each(fill_downward_item);
    }
    if let Some(path) = volume.get_mut("hostPath") {
        default(as_map(path), "type", || json!(""));
    }
    let sources = as_map(volume).keys().filter(|key| *key != "name").count();
    if sources == 0 {
        as_map(volume).insert("emptyDir".into(), json!({}));
    }
}

fn fill_downward_item(item: &mut Value) {
    if let Some(reference) = item.get_mut("fieldRef") {
        default(as_map(reference), "apiVersion", || json!("v1"));
    }
}

/// How well a pod is provided for: all requests equal to limits, some, or none.
fn quality_class(spec: &Value) -> &'static str {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|l| crate::api::object::items(spec, &[l]));
    let (mut any, mut guaranteed) = (false, true);
    for container in containers {
        let amount = |kind: &str, what: &str| container["resources"][kind].get(what).cloned();
        for what in ["cpu", "memory"] {
            let (request, limit) = (amount("requests", what), amount("limits", what));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
