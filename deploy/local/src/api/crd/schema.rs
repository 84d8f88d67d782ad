//! Structural schemas: what is dropped from custom objects and what is filled in.

use serde_json::Value;

use crate::api::object::as_map;

pub fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// Drops the fields that the schema doesn't know and gives their paths.
pub fn prune(schema: &Value, object: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    prune_value(schema, object, "", true, &mut dropped);
    dropped
}

fn prune_value(schema: &Value, value: &mut Value, path: &str, root: bool, dropped: &mut Vec<String>) {
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    match value {
        Value::Object(map) => {
            let keep_unknown = flag(schema, "x-kubernetes-preserve-unknown-fields");
            let properties = schema.get("properties").and_then(Value::as_object);
            let additional = schema.get("additionalProperties");
            map.retain(|key, child| {
                let child_path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if (root || embedded) && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                if let Some(child_schema) = properties.and_then(|p| p.get(key)) {
                    prune_value(child_schema, child, &child_path, false, dropped);
                    return true;
                }
                match additional {
                    Some(Value::Bool(true)) => return true,
                    Some(child_schema @ Value::Object(_)) => {
                        prune_value(child_schema, child, &child_path, false, dropped);
                        return true;
                    }
                    _ => {}
                }
                if !keep_unknown {
                    dropped.push(child_path);
                }
                keep_unknown
            });
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                for (i, item) in items.iter_mut().enumerate() {
                    prune_value(item_schema, item, &format!("{path}[{i}]"), false, dropped);
                }
            }
        }
        _ => {}
    }
}

/// Fills in defaults.
pub fn default(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(map) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (key, child_schema) in properties.into_iter().flatten() {
                if let Some(standard) = child_schema.get("default") {
                    let missing = match map.get(key) {
                        None => true,
                        Some(Value::Null) => !flag(child_schema, "nullable"),
                        Some(_) => false,
                    };
                    if missing {
                        map.insert(key.clone(), standard.clone());
                    }
                }
                if let Some(child) = map.get_mut(key) {
                    default(child_schema, child);
                }
            }
            if let Some(additional @ Value::Object(_)) = schema.get("additionalProperties") {
                let known = |key: &str| properties.is_some_and(|p| p.contains_key(key));
                for (_, child) in map.iter_mut().filter(|(key, _)| !known(key)) {
                    default(additional, child);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item_schema) = schema.get("items") {
                for item in items {
                    default(item_schema, item);
                }
            }
        }
        _ => {}
    }
}

/// Drops nulls of fields that may not be null: they count as left out.
pub fn drop_nulls(schema: &Value, value: &mut Value) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let Value::Object(_) = value else { return };
    let map = as_map(value);
    map.retain(|key, child| !(child.is_null() && properties.get(key).is_some_and(|s| !flag(s, "nullable"))));
    for (key, child) in map.iter_mut() {
        if let Some(child_schema) = properties.get(key) {
            drop_nulls(child_schema, child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn widget() -> Value {
        json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "enum": ["red", "green"], "default": "red"},
            "names": {"type": "array", "maxItems": 3, "items": {"type": "string", "pattern": "^[a-z]+$"}},
            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties":
                    {"name": {"type": "string"}, "weight": {"type": "integer", "default": 1}}}},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "maybe": {"type": "string", "nullable": true},
        }}}})
    }

    #[test]
    fn unknown_fields_go_and_defaults_come() {
        let mut object = json!({"apiVersion": "v", "metadata": {"x": 1}, "other": 1,
            "spec": {"size": 1, "what": 2, "free": {"kept": true}, "color": null, "parts": [{"name": "a", "no": 1}]}});
        assert_eq!(prune(&widget(), &mut object), ["other", "spec.parts[0].no", "spec.what"]);
        default(&widget(), &mut object);
        assert_eq!(
            object,
            json!({"apiVersion": "v", "metadata": {"x": 1},
            "spec": {"size": 1, "free": {"kept": true}, "color": "red", "parts": [{"name": "a", "weight": 1}]}})
        );
    }
}
