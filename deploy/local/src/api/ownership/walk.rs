//! Walking objects as server-side apply sees them: maps field by field, lists by their keys, or as one value.

use serde_json::{Map, Value};

use super::fields::{FieldSet, find, key_of};
use crate::api::lists::{ListKind, is_atomic_map, owned_list};
use crate::api::resource::Resource;

/// What is known of the structure of a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape<'a> {
    /// A built-in kind, or metadata.
    BuiltIn,
    /// A custom resource, by its schema; `None` below what the schema describes.
    Custom(Option<&'a Value>),
}

impl<'a> Shape<'a> {
    pub fn of(resource: &'a Resource) -> Self {
        resource.custom().map_or(Self::BuiltIn, |custom| Self::Custom(Some(&custom.schema)))
    }

    /// The shape of a field; `depth` 0 is the object itself.
    pub fn field(self, name: &str, depth: usize) -> Self {
        match self {
            Self::BuiltIn => Self::BuiltIn,
            Self::Custom(_) if depth == 0 && name == "metadata" => Self::BuiltIn,
            Self::Custom(schema) => Self::Custom(schema.and_then(|s| {
                s.get("properties")
                    .and_then(|p| p.get(name))
                    .or_else(|| s.get("additionalProperties").filter(|a| a.is_object()))
            })),
        }
    }

    pub fn item(self) -> Self {
        match self {
            Self::BuiltIn => Self::BuiltIn,
            Self::Custom(schema) => Self::Custom(schema.and_then(|s| s.get("items"))),
        }
    }

    pub fn list(self, path: &[&str], list: &Value) -> ListKind {
        let schema = match self {
            Self::BuiltIn => return owned_list(path, list),
            Self::Custom(schema) => schema,
        };
        let text = |name: &str| schema.and_then(|s| s.get(name)).and_then(Value::as_str);
        match text("x-kubernetes-list-type") {
            Some("map") => {
                let keys = schema.and_then(|s| s.get("x-kubernetes-list-map-keys")).and_then(Value::as_array);
                ListKind::Keyed(keys.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect())
            }
            Some("set") => ListKind::Set,
            _ => ListKind::Atomic,
        }
    }

    pub fn is_atomic_map(self, path: &[&str]) -> bool {
        match self {
            Self::BuiltIn => is_atomic_map(path),
            Self::Custom(schema) => {
                schema.and_then(|s| s.get("x-kubernetes-map-type")).is_some_and(|kind| kind == "atomic")
            }
        }
    }
}

/// The element by which a list item is known; `None` for lists that are one value.
pub fn element_of(kind: &ListKind, item: &Value) -> Option<String> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Keyed(keys) => {
            let keys: Map<String, Value> = keys.iter().map(|key| (key.clone(), key_of(item, key))).collect();
            Some(format!("k:{}", Value::Object(keys)))
        }
    }
}

/// Metadata that belongs to the server.
pub const SYSTEM_METADATA: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// Whether a field of an object belongs to nobody.
pub fn is_system(path: &[&str]) -> bool {
    match path {
        ["apiVersion" | "kind"] => true,
        ["metadata", field] => SYSTEM_METADATA.contains(field),
        _ => false,
    }
}

/// The fields of `new` that `old` doesn't have, or has with another value.
pub fn difference(shape: Shape<'_>, old: &Value, new: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    Differ { containers: true }.walk(shape, Some(old), new, &mut Vec::new(), &mut set);
    set.own = false;
    set
}

/// The fields a configuration names.
pub fn fields_of(shape: Shape<'_>, configuration: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    Differ { containers: false }.walk(shape, None, configuration, &mut Vec::new(), &mut set);
    set.own = false;
    set
}

struct Differ {
    /// Whether new maps of labels, data and the like count themselves.
    containers: bool,
}

/// Maps whose keys are the user's.
const FREE_MAPS: [&str; 8] =
    ["labels", "annotations", "data", "binaryData", "matchLabels", "limits", "requests", "nodeSelector"];

impl Differ {
    fn walk<'v>(
        &self,
        shape: Shape<'_>,
        old: Option<&Value>,
        new: &'v Value,
        path: &mut Vec<&'v str>,
        out: &mut FieldSet,
    ) {
        match new {
            Value::Object(map) if !map.is_empty() && !shape.is_atomic_map(path) => {
                let depth = path.len();
                let free = path.last().is_some_and(|name| FREE_MAPS.contains(name));
                out.own |= self.containers && free && old.is_none_or(|old| !old.is_object());
                for (key, child) in map {
                    path.push(key);
                    if !is_system(path) {
                        let mut set = FieldSet::default();
                        self.walk(shape.field(key, depth), old.and_then(|old| old.get(key)), child, path, &mut set);
                        if !set.is_empty() {
                            out.children.insert(format!("f:{key}"), set);
                        }
                    }
                    path.pop();
                }
            }
            Value::Array(list) if !list.is_empty() => {
                let kind = shape.list(path, new);
                if kind == ListKind::Atomic {
                    out.own = old != Some(new);
                    return;
                }
                for item in list {
                    let Some(element) = element_of(&kind, item) else { continue };
                    let before = old.and_then(|old| find(old, &element));
                    let mut set = FieldSet { own: before.is_none(), ..FieldSet::default() };
                    if matches!(kind, ListKind::Keyed(_)) {
                        self.walk(shape.item(), before, item, path, &mut set);
                    }
                    if !set.is_empty() {
                        out.children.insert(element, set);
                    }
                }
            }
            _ => out.own = old != Some(new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn changed_fields_are_found_by_name_and_key() {
        let old = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "a"}], "selector": {"a": "1"}}});
        let mut new = old.clone();
        new["metadata"]["labels"]["y"] = json!("2");
        new["metadata"]["resourceVersion"] = json!("9");
        new["spec"]["ports"] = json!([{"port": 80, "protocol": "TCP", "name": "b"}, {"port": 81}]);
        new["spec"]["selector"] = json!({"a": "1", "b": "2"});
        let found = difference(Shape::BuiltIn, &old, &new).write();
        assert_eq!(
            found,
            json!({"f:metadata": {"f:labels": {"f:y": {}}}, "f:spec": {"f:selector": {}, "f:ports": {
            "k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}},
            "k:{\"port\":81,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})
        );
    }

    #[test]
    fn a_custom_schema_says_which_lists_have_keys() {
        let schema = json!({"properties": {"spec": {"properties": {
            "m": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}, "s": {"x-kubernetes-list-type": "set"}}}}});
        let fields = fields_of(
            Shape::Custom(Some(&schema)),
            &json!({"spec": {"m": [{"n": 1, "v": 2}], "s": ["a"], "atomic": [1]}}),
        );
        assert_eq!(
            fields.write(),
            json!({"f:spec": {"f:atomic": {}, "f:m": {"k:{\"n\":1}": {".": {}, "f:n": {}, "f:v": {}}}, "f:s": {"v:\"a\"": {}}}})
        );
    }
}
