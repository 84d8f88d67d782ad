//! Defaults of the kinds that make pods.

use serde_json::{Value, json};

use super::pod::fill_template;
use crate::api::object::{as_map, default, items_mut, map, text};

pub fn deployment(object: &mut Value) {
    let spec = map(object, "spec");
    default(spec, "replicas", || json!(1));
    default(spec, "revisionHistoryLimit", || json!(10));
    default(spec, "progressDeadlineSeconds", || json!(600));
    default(spec, "strategy", || json!({}));
    if let Some(strategy) = spec.get_mut("strategy") {
        default(as_map(strategy), "type", || json!("RollingUpdate"));
        if strategy["type"] == "RollingUpdate" {
            let rolling = map(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", || json!("25%"));
            default(rolling, "maxSurge", || json!("25%"));
        }
    }
    fill_template(&mut object["spec"]);
}

pub fn replica_set(object: &mut Value) {
    default(map(object, "spec"), "replicas", || json!(1));
    fill_template(&mut object["spec"]);
}

pub fn stateful_set(object: &mut Value) {
    let spec = map(object, "spec");
    default(spec, "replicas", || json!(1));
    default(spec, "revisionHistoryLimit", || json!(10));
    default(spec, "podManagementPolicy", || json!("OrderedReady"));
    default(spec, "updateStrategy", || json!({}));
    default(spec, "persistentVolumeClaimRetentionPolicy", || json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    if let Some(strategy) = spec.get_mut("updateStrategy") {
        default(as_map(strategy), "type", || json!("RollingUpdate"));
        if strategy["type"] == "RollingUpdate" {
            default(map(strategy, "rollingUpdate"), "partition", || json!(0));
        }
    }
    fill_template(&mut object["spec"]);
    for claim in items_mut(&mut object["spec"], "volumeClaimTemplates") {
        super::rest::claim(claim);
        as_map(claim).insert("apiVersion".into(), json!("v1"));
        as_map(claim).insert("kind".into(), json!("PersistentVolumeClaim"));
    }
}

pub fn daemon_set(object: &mut Value) {
    let spec = map(object, "spec");
    default(spec, "revisionHistoryLimit", || json!(10));
    default(spec, "updateStrategy", || json!({}));
    if let Some(strategy) = spec.get_mut("updateStrategy") {
        default(as_map(strategy), "type", || json!("RollingUpdate"));
        if strategy["type"] == "RollingUpdate" {
            let rolling = map(strategy, "rollingUpdate");
            default(rolling, "maxUnavailable", || json!(1));
            default(rolling, "maxSurge", || json!(0));
        }
    }
    fill_template(&mut object["spec"]);
}

pub fn job(object: &mut Value) {
    let uid = text(object, &["metadata", "uid"]).to_owned();
    let name = text(object, &["metadata", "name"]).to_owned();
    let spec = map(object, "spec");
    job_spec(spec);
    fill_template(&mut object["spec"]);
    let spec = map(object, "spec");
    if spec.get("manualSelector") == Some(&json!(true))
        || uid.is_empty()
        || spec.get("selector").is_some_and(|s| !s.is_null())
    {
        return;
    }
    spec.insert("selector".into(), json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    let labels = map(map_value(spec, "template"), "metadata");
    let labels = as_map(labels.entry("labels").or_insert_with(|| json!({})));
    for prefix in ["", "batch.kubernetes.io/"] {
        labels.insert(format!("{prefix}controller-uid"), json!(uid));
        labels.insert(format!("{prefix}job-name"), json!(name));
    }
}

fn map_value<'a>(parent: &'a mut serde_json::Map<String, Value>, key: &str) -> &'a mut Value {
    parent.entry(key).or_insert_with(|| json!({}))
}

fn job_spec(spec: &mut serde_json::Map<String, Value>) {
    let counted = spec.contains_key("completions") || spec.contains_key("parallelism");
    if !counted {
        default(spec, "completions", || json!(1));
    }
    default(spec, "parallelism", || json!(1));
    default(spec, "backoffLimit", || json!(6));
    default(spec, "completionMode", || json!("NonIndexed"));
    default(spec, "suspend", || json!(false));
    default(spec, "manualSelector", || json!(false));
    default(spec, "podReplacementPolicy", || json!("TerminatingOrFailed"));
}

pub fn cron_job(object: &mut Value) {
    let spec = map(object, "spec");
    default(spec, "concurrencyPolicy", || json!("Allow"));
    default(spec, "suspend", || json!(false));
    default(spec, "successfulJobsHistoryLimit", || json!(3));
    default(spec, "failedJobsHistoryLimit", || json!(1));
    if let Some(template) = object.pointer_mut("/spec/jobTemplate/spec") {
        fill_template(template);
    }
}
