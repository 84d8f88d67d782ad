//! Who changed an object: Kubernetes keeps, with every object, who manages which of its fields, and since when.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Somebody who applied or updated an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
pub struct Manager {
    /// Its name, e.g. `kubectl-client-side-apply`.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// The part of the object, e.g. `status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
    /// To the second, as the API server keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// Who made an object what it is, given what it was.
///
/// Those who are new, or whose time is another one. If there are none, those whose fields are others: the API server's times are to the
/// second, and who loses a field to somebody else keeps the time. If there are none either, the ones that were last. Nobody, if the
/// object has no entries.
pub fn who_changed(before: Option<&str>, after: &str) -> Vec<Manager> {
    let (old, new) = (before.map(entries).unwrap_or_default(), entries(after));
    let known: Vec<Manager> = old.iter().filter_map(manager).collect();
    let all: Vec<Manager> = new.iter().filter_map(manager).collect();
    let later: Vec<Manager> = all.iter().filter(|manager| !known.contains(manager)).cloned().collect();
    if !later.is_empty() {
        return later;
    }
    let others: Vec<Manager> = new.iter().filter(|entry| !old.contains(entry)).filter_map(manager).collect();
    if !others.is_empty() {
        return others;
    }
    let last = all.iter().map(|manager| manager.time.clone()).max();
    all.into_iter().filter(|manager| Some(&manager.time) == last.as_ref()).collect()
}

/// `metadata.managedFields`, which is a list, whatever else it may hold.
fn entries(object: &str) -> Vec<Value> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default, rename = "managedFields")]
        managed_fields: Vec<Value>,
    }
    serde_json::from_str::<Object>(object).map(|object| object.metadata.managed_fields).unwrap_or_default()
}

fn manager(entry: &Value) -> Option<Manager> {
    Manager::deserialize(entry).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(entries: Value) -> String {
        json!({ "metadata": { "managedFields": entries } }).to_string()
    }

    fn entry(manager: &str, time: &str, fields: &str) -> Value {
        json!({ "manager": manager, "operation": "Update", "time": time, "fieldsV1": { fields: {} } })
    }

    fn names(managers: &[Manager]) -> Vec<&str> {
        managers.iter().map(|manager| manager.manager.as_str()).collect()
    }

    #[test]
    fn whose_entry_differs_has_changed_it() {
        let before = object(json!([
            entry("helm", "2026-01-01T00:00:00Z", "f:a"),
            entry("alice", "2026-01-01T00:00:01Z", "f:b")
        ]));
        let after = object(json!([
            entry("helm", "2026-01-01T00:00:00Z", "f:a"),
            entry("alice", "2026-01-01T00:00:01Z", "f:c")
        ]));
        assert_eq!(names(&who_changed(Some(&before), &after)), ["alice"]);
        assert_eq!(names(&who_changed(None, &after)), ["helm", "alice"]);
    }

    #[test]
    fn who_loses_a_field_to_somebody_has_not_changed_it() {
        let before = object(json!([entry("helm", "2026-01-01T00:00:00Z", "f:a")]));
        let after = object(json!([
            entry("helm", "2026-01-01T00:00:00Z", "f:b"),
            entry("alice", "2026-01-01T00:00:00Z", "f:a")
        ]));
        assert_eq!(names(&who_changed(Some(&before), &after)), ["alice"]);
    }

    #[test]
    fn if_no_entry_differs_it_was_the_last_one() {
        let same = object(json!([
            entry("helm", "2026-01-01T00:00:00Z", "f:a"),
            entry("alice", "2026-01-01T00:00:01Z", "f:b")
        ]));
        assert_eq!(names(&who_changed(Some(&same), &same)), ["alice"]);
    }

    #[test]
    fn an_object_without_entries_names_nobody() {
        let none = "{\"metadata\":{\"name\":\"a\"}}";
        assert_eq!(who_changed(None, none), []);
        assert_eq!(who_changed(Some("{\"metadata\":{\"managedFields\":\"x\"}}"), none), []);
    }
}
