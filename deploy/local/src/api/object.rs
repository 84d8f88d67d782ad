//! Reading and writing Kubernetes objects as plain JSON.

use serde_json::{Map, Value, json};

/// The value at a path of keys.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// The text at a path; empty when there is none.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The items at a path; none when there is no list.
pub fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub fn items_mut<'a>(object: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

pub fn resource_version(object: &Value) -> &str {
    text(object, &["metadata", "resourceVersion"])
}

/// Whether the object has been deleted and waits for its finalizers or its node.
pub fn is_terminating(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some_and(|v| !v.is_null())
}

pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    items(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str)
}

/// The map under a key, made if missing. `parent` becomes an empty map if it is none.
pub fn map<'a>(parent: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let child = as_map(parent).entry(key).or_insert_with(|| json!({}));
    as_map(child)
}

/// The map a value is; anything else is replaced by an empty map.
pub fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => {
            *other = json!({});
            as_map(other)
        }
    }
}

pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    map(object, "metadata")
}

/// Sets a key that is missing or null.
pub fn default(map: &mut Map<String, Value>, key: &str, value: impl FnOnce() -> Value) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.into(), value());
    }
}

/// Sets a key to a value, or removes it when there is none.
pub fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => map.insert(key.into(), value),
        None => map.remove(key),
    };
}

/// This instant as metadata shows it: UTC, whole seconds.
pub fn now() -> String {
    timestamp(jiff::Timestamp::now())
}

/// An instant as metadata shows it: UTC, whole seconds.
pub fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Whether two objects differ in nothing but their version and the times of their managed fields.
pub fn same_content(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    a.len() == b.len()
        && a.iter().all(|(key, value)| match (key.as_str(), b.get(key)) {
            (_, None) => false,
            ("metadata", Some(other)) => same_metadata(value, other),
            (_, Some(other)) => value == other,
        })
}

fn same_metadata(a: &Value, b: &Value) -> bool {
    fn significant(metadata: &Value) -> Option<Map<String, Value>> {
        let mut map = metadata.as_object()?.clone();
        map.remove("resourceVersion");
        if let Some(entries) = map.get_mut("managedFields").and_then(Value::as_array_mut) {
            for entry in entries {
                as_map(entry).remove("time");
            }
        }
        Some(map)
    }
    significant(a) == significant(b)
}
