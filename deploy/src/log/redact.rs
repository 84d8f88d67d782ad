//! What is taken out of an export that goes to others: texts that may be private, and that no decision of the mesh depends on.
//!
//! What is left leads to the same configurations of all proxies. The digests of the catalog, which covers every byte of
//! every object, are taken out too.

use anyhow::Context;
use fsm_actors::core::snapshot;
use fsm_actors::{Fact, Json};
use fsm_store::{Entry, Record};
use serde_json::{Map, Value};

/// What stands in the place of what was taken out.
const REDACTED: &str = "REDACTED";
/// Annotations of these domains say what the mesh does.
const OURS: [&str; 2] = ["flomesh.io/", "fsm"];
const DATA: [&str; 3] = ["data", "stringData", "binaryData"];
const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// The record without what may be private.
pub(super) fn redact(record: &Record) -> Record {
    let fact = match Fact::parse(&record.entry) {
        Ok(Fact::Object(mut fact)) => {
            fact.object = redact_object(&fact.object);
            Fact::Object(fact)
        }
        Ok(Fact::StateDigest(mut fact)) => {
            fact.digests.remove("catalog");
            Fact::StateDigest(fact)
        }
        Ok(Fact::Unknown { .. }) | Err(_) => {
            let entry = Entry { body: b"{}"[..].into(), ..record.entry.clone() };
            return Record { entry, ..record.clone() };
        }
        Ok(_) => return record.clone(),
    };
    Record { entry: fact.to_entry(record.entry.trace), ..record.clone() }
}

/// The snapshot without what may be private.
pub(super) fn redact_snapshot(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let changed = snapshot::with_objects(bytes, redact_object);
    changed.context("the state before the first record can't be read back")
}

fn redact_object(json: &Json) -> Json {
    let Ok(mut object) = serde_json::from_str::<Value>(json.get()) else { return json.clone() };
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        for (key, value) in annotations.iter_mut() {
            if !OURS.iter().any(|ours| key.contains(ours)) {
                *value = REDACTED.into();
            }
        }
    }
    for key in DATA {
        if let Some(data) = object.get_mut(key).and_then(Value::as_object_mut) {
            data.values_mut().for_each(|value| *value = REDACTED.into());
        }
    }
    for list in CONTAINERS {
        let containers = object.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        containers.into_iter().flatten().filter_map(Value::as_object_mut).for_each(redact_container);
    }
    Json::from(&object)
}

fn redact_container(container: &mut Map<String, Value>) {
    for key in ["command", "args"] {
        let words = container.get_mut(key).and_then(Value::as_array_mut);
        words.into_iter().flatten().for_each(|word| *word = REDACTED.into());
    }
    let variables = container.get_mut("env").and_then(Value::as_array_mut);
    for value in variables.into_iter().flatten().filter_map(|variable| variable.get_mut("value")) {
        *value = REDACTED.into();
    }
    for (_, part) in container.iter_mut().filter(|(key, _)| key.ends_with("Probe") || *key == "lifecycle") {
        redact_headers(part);
    }
}

/// Values of HTTP headers, and commands, however deep.
fn redact_headers(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact_headers),
        Value::Object(fields) => {
            for (key, value) in fields.iter_mut() {
                match (key.as_str(), value) {
                    ("httpHeaders", Value::Array(headers)) => {
                        headers
                            .iter_mut()
                            .filter_map(|header| header.get_mut("value"))
                            .for_each(|value| *value = REDACTED.into());
                    }
                    ("command", Value::Array(words)) => words.iter_mut().for_each(|word| *word = REDACTED.into()),
                    (_, value) => redact_headers(value),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use fsm_store::{Seq, Timestamp, TraceContext};
    use serde_json::json;

    use super::*;

    fn redacted(object: &Value) -> Value {
        let entry = Fact::applied("v1/Pod", object).to_entry(TraceContext::default());
        let record = redact(&Record { seq: Seq(1), time: Timestamp(2), entry });
        let body: Value = serde_json::from_slice(&record.entry.body).unwrap();
        body["object"].clone()
    }

    #[test]
    fn texts_that_may_be_private_are_taken_out_and_what_the_mesh_reads_stays() {
        let pod = json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"},
                "annotations": {"flomesh.io/sidecar-injection": "enabled", "note": "call Bob"}},
            "spec": {"serviceAccountName": "web", "containers": [{"name": "app", "image": "shop/web:1",
                "command": ["sh", "-c", "secret"], "env": [{"name": "PASSWORD", "value": "secret"}, {"name": "IP", "valueFrom": {}}],
                "livenessProbe": {"httpGet": {"path": "/", "httpHeaders": [{"name": "Authorization", "value": "secret"}]},
                    "exec": {"command": ["secret"]}}}]},
        });
        let out = redacted(&pod);
        let text = out.to_string();
        assert!(!text.contains("secret") && !text.contains("Bob"), "{text}");
        assert_eq!(out.pointer("/metadata/annotations/flomesh.io~1sidecar-injection"), Some(&json!("enabled")));
        assert_eq!(out["spec"]["serviceAccountName"], "web");
        assert_eq!(out["metadata"]["labels"], pod["metadata"]["labels"]);
        assert_eq!(out["spec"]["containers"][0]["image"], "shop/web:1");
    }

    #[test]
    fn what_is_of_a_newer_version_is_taken_out_whole() {
        let entry =
            Entry { topic: "new".into(), key: "k".into(), body: b"secret"[..].into(), trace: TraceContext::default() };
        let record = redact(&Record { seq: Seq(1), time: Timestamp(2), entry });
        assert_eq!(record.entry.body, b"{}"[..]);
    }
}
