//! Sets of fields, in the form of FieldsV1: `f:NAME` a field, `k:{…}` a list item by its keys, `v:VALUE` an item of a set,
//! `.` the value itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the value at this place is in the set.
    pub own: bool,
    pub children: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        !self.own && self.children.is_empty()
    }

    pub fn read(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self::default() };
        let mut set = Self { own: map.contains_key(".") || map.is_empty(), children: BTreeMap::new() };
        for (key, child) in map.iter().filter(|(key, _)| *key != ".") {
            set.children.insert(key.clone(), Self::read(child));
        }
        set
    }

    pub fn write(&self) -> Value {
        let mut map = Map::new();
        if self.own && !self.children.is_empty() {
            map.insert(".".into(), json!({}));
        }
        for (key, child) in &self.children {
            map.insert(key.clone(), child.write());
        }
        Value::Object(map)
    }

    pub fn union(&mut self, other: &Self) {
        self.own |= other.own;
        for (key, child) in &other.children {
            self.children.entry(key.clone()).or_default().union(child);
        }
    }

    /// Takes out what is in another set.
    pub fn subtract(&mut self, other: &Self) {
        self.own &= !other.own;
        for (key, child) in &other.children {
            if let Some(mine) = self.children.get_mut(key) {
                mine.subtract(child);
                if mine.is_empty() {
                    self.children.remove(key);
                }
            }
        }
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { own: self.own && other.own, children: BTreeMap::new() };
        for (key, child) in &self.children {
            let shared = other.children.get(key).map(|theirs| child.intersection(theirs)).unwrap_or_default();
            if !shared.is_empty() {
                both.children.insert(key.clone(), shared);
            }
        }
        both
    }

    /// Takes out fields that an object doesn't have.
    pub fn keep_present(&mut self, object: &Value) {
        self.children.retain(|element, child| match find(object, element) {
            Some(value) => {
                child.keep_present(value);
                !child.is_empty()
            }
            None => false,
        });
    }

    /// The paths in the set, as messages show them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect_paths("", &mut out);
        out
    }

    fn collect_paths(&self, path: &str, out: &mut Vec<String>) {
        if self.own && !path.is_empty() {
            out.push(path.to_owned());
        }
        for (element, child) in &self.children {
            child.collect_paths(&format!("{path}{}", shown(element)), out);
        }
    }
}

fn shown(element: &str) -> String {
    if let Some(name) = element.strip_prefix("f:") {
        return format!(".{name}");
    }
    if let Some(keys) = element.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
        let pairs: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
        return format!("[{}]", pairs.join(","));
    }
    format!("[={}]", element.trim_start_matches("v:"))
}

/// The value an element of a path leads to.
pub fn find<'a>(value: &'a Value, element: &str) -> Option<&'a Value> {
    if let Some(name) = element.strip_prefix("f:") {
        return value.get(name);
    }
    value.as_array()?.iter().find(|item| is_item(item, element))
}

/// Whether a list item is the one an element names.
pub fn is_item(item: &Value, element: &str) -> bool {
    if let Some(keys) = element.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
        return keys.iter().all(|(key, wanted)| key_of(item, key) == *wanted);
    }
    let value = element.strip_prefix("v:").and_then(|text| serde_json::from_str::<Value>(text).ok());
    value.is_some_and(|value| *item == value)
}

/// The value of a key of a list item; a port without a protocol is a TCP port.
pub fn key_of(item: &Value, key: &str) -> Value {
    match item.get(key) {
        None | Some(Value::Null) if key == "protocol" => json!("TCP"),
        None => Value::Null,
        Some(value) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written_as_fields_v1() {
        let written = json!({"f:data": {".": {}, "f:a": {}}, "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}});
        let set = FieldSet::read(&written);
        assert_eq!(set.write(), written);
        assert_eq!(
            set.paths(),
            [".data", ".data.a", ".spec.ports[port=80,protocol=\"TCP\"]", ".spec.ports[port=80,protocol=\"TCP\"].port"]
        );
    }

    #[test]
    fn fields_that_are_gone_belong_to_nobody() {
        let mut set = FieldSet::read(&json!({"f:a": {"f:b": {}, "f:c": {}}, "f:l": {"k:{\"name\":\"x\"}": {".": {}}}}));
        set.keep_present(&json!({"a": {"b": 1}, "l": [{"name": "y"}]}));
        assert_eq!(set.write(), json!({"f:a": {"f:b": {}}}));
    }
}
