//! Events have two faces over the same objects: `v1`, in which they are kept, and `events.k8s.io/v1`.

use serde_json::{Value, json};

use super::object::as_map;

/// Names that differ: in `v1`, in `events.k8s.io/v1`.
const NAMES: [(&str, &str); 5] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

const SOURCE: (&str, &str) = ("source", "deprecatedSource");
const CONTROLLER: (&str, &str) = ("reportingComponent", "reportingController");

/// Turns a `v1` Event into an `events.k8s.io/v1` one.
pub fn to_events_v1(event: &mut Value) {
    let event = as_map(event);
    for (core, new) in NAMES.into_iter().chain([SOURCE, CONTROLLER]) {
        if let Some(value) = event.remove(core) {
            event.insert(new.into(), value);
        }
    }
    event.insert("apiVersion".into(), json!("events.k8s.io/v1"));
}

/// Turns an `events.k8s.io/v1` Event into a `v1` one.
pub fn to_core_v1(event: &mut Value) {
    let event = as_map(event);
    for (core, new) in NAMES.into_iter().chain([SOURCE, CONTROLLER]) {
        if let Some(value) = event.remove(new) {
            event.insert(core.into(), value);
        }
    }
    event.insert("apiVersion".into(), json!("v1"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "p"}, "message": "m",
            "count": 2, "reportingComponent": "c", "source": {"component": "c"}, "eventTime": null});
        let mut event = core.clone();
        to_events_v1(&mut event);
        assert_eq!((&event["note"], &event["regarding"]["name"]), (&json!("m"), &json!("p")));
        to_core_v1(&mut event);
        assert_eq!(event, core);
    }
}
