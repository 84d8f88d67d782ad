//! Server-side apply: a configuration is merged into the object, and its fields belong to whoever applied it.

use serde_json::{Value, json};

use super::fields::{FieldSet, find, is_item};
use super::walk::{self, Shape, element_of, is_system};
use super::{Entry, entries, put_entries};
use crate::api::lists::ListKind;
use crate::api::object::{as_map, now, text};
use crate::api::resource::Resource;
use crate::api::status::ApiError;

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// `conflict with "NAME" …`
    pub with: String,
    pub field: String,
}

impl Conflict {
    /// The refusal of an apply that would take fields from others.
    pub fn refusal(conflicts: &[Self]) -> ApiError {
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|c| json!({"reason": "FieldManagerConflict", "message": c.with, "field": c.field}))
            .collect();
        let message = match conflicts {
            [one] => format!("Apply failed with 1 conflict: {}: {}", one.with, one.field),
            many => {
                let mut lines: Vec<String> = Vec::new();
                for conflict in many {
                    let with = format!("{}:", conflict.with);
                    if !lines.contains(&with) {
                        lines.push(with.replace("conflict with", "conflicts with"));
                    }
                    lines.push(format!("- {}", conflict.field));
                }
                lines.dedup();
                format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
            }
        };
        ApiError::new(409, "Conflict", message).with_details(json!({"causes": causes}))
    }
}

/// The object after an apply, with its `managedFields`. `live` is empty for an object that doesn't exist.
pub fn applied(
    resource: &Resource,
    live: &Value,
    configuration: &Value,
    manager: &str,
    subresource: &str,
    force: bool,
) -> Result<Value, Vec<Conflict>> {
    let shape = Shape::of(resource);
    let claimed = walk::fields_of(shape, configuration);
    let mut all = entries(live);
    let position = all.iter().position(|e| e.is(manager, "Apply", subresource));
    let before = position.map(|i| all.remove(i));

    let mut object = live.clone();
    merge(shape, &mut object, configuration, &mut Vec::new());
    if let Some(before) = &before {
        let mut others = FieldSet::default();
        all.iter().for_each(|entry| others.union(&entry.fields));
        remove(&mut object, &before.fields, &claimed, &others);
    }

    let changed = walk::difference(shape, live, &object).intersection(&claimed);
    let mut contested = changed.clone();
    if manager == "kubectl" {
        contested.subtract(&applied_by_client(shape, live));
    }
    let mut conflicts = Vec::new();
    for entry in &all {
        for field in entry.fields.intersection(&contested).paths() {
            conflicts.push(Conflict { with: described(entry), field });
        }
    }
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    for entry in &mut all {
        entry.fields.subtract(&changed);
        entry.fields.keep_present(&object);
    }
    all.retain(|entry| !entry.fields.is_empty());
    let unchanged = before.as_ref().filter(|b| b.fields == claimed && changed.is_empty());
    let time = unchanged.map_or_else(|| json!(now()), |b| b.time.clone());
    let mine = Entry {
        manager: manager.into(),
        operation: "Apply".into(),
        api_version: resource.api_version(),
        subresource: subresource.into(),
        time,
        fields: claimed,
    };
    all.insert(position.unwrap_or(all.len()).min(all.len()), mine);
    put_entries(&mut object, &all);
    if manager == "kubectl" {
        remember_applied(&mut object, configuration);
    }
    Ok(object)
}

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a client-side apply left in an annotation is kept up to date, so that one can go back to it.
fn remember_applied(object: &mut Value, configuration: &Value) {
    let Some(annotation) = object.pointer_mut("/metadata/annotations").and_then(|all| all.get_mut(LAST_APPLIED)) else {
        return;
    };
    let mut applied = configuration.clone();
    if let Some(annotations) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = json!(format!("{applied}\n"));
}

/// The fields that a client-side `kubectl apply` set and nobody changed since. A server-side one may take them over.
fn applied_by_client(shape: Shape<'_>, live: &Value) -> FieldSet {
    let annotation = text(live, &["metadata", "annotations", LAST_APPLIED]);
    let Ok(last) = serde_json::from_str::<Value>(annotation) else { return FieldSet::default() };
    let mut fields = walk::fields_of(shape, &last);
    fields.subtract(&walk::difference(shape, live, &last));
    fields
}

fn described(entry: &Entry) -> String {
    let mut text = format!("conflict with {:?}", entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", entry.subresource));
    }
    if entry.operation == "Update" {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}

fn merge<'v>(shape: Shape<'_>, target: &mut Value, patch: &'v Value, path: &mut Vec<&'v str>) {
    match patch {
        Value::Object(map) if !shape.is_atomic_map(path) => {
            let depth = path.len();
            let target = as_map(target);
            for (key, child) in map {
                path.push(key);
                if !is_system(path) || !target.contains_key(key) {
                    let mine = target.entry(key).or_insert(Value::Null);
                    merge(shape.field(key, depth), mine, child, path);
                }
                path.pop();
            }
        }
        Value::Array(items) => {
            let kind = shape.list(path, patch);
            if kind == ListKind::Atomic {
                *target = patch.clone();
                return;
            }
            if !target.is_array() {
                *target = json!([]);
            }
            let Value::Array(list) = target else { return };
            for item in items {
                let Some(element) = element_of(&kind, item) else { continue };
                match list.iter_mut().find(|mine| is_item(mine, &element)) {
                    Some(mine) => merge(shape.item(), mine, item, path),
                    None => list.push(item.clone()),
                }
            }
        }
        other => *target = other.clone(),
    }
}

/// Removes what the manager applied before and doesn't any more, unless someone else owns it.
fn remove(object: &mut Value, before: &FieldSet, now: &FieldSet, others: &FieldSet) {
    let nobody = FieldSet::default();
    for (element, had) in &before.children {
        let kept = now.children.get(element);
        let shared = others.children.get(element).unwrap_or(&nobody);
        if kept.is_none() && shared.is_empty() {
            take_out(object, element);
        } else if let Some(child) = find_mut(object, element) {
            remove(child, had, kept.unwrap_or(&nobody), shared);
        }
    }
}

fn take_out(object: &mut Value, element: &str) {
    match object {
        Value::Object(map) => {
            if let Some(name) = element.strip_prefix("f:") {
                map.remove(name);
            }
        }
        Value::Array(list) => list.retain(|item| !is_item(item, element)),
        _ => {}
    }
}

fn find_mut<'a>(object: &'a mut Value, element: &str) -> Option<&'a mut Value> {
    find(object, element)?;
    match element.strip_prefix("f:") {
        Some(name) => object.get_mut(name),
        None => object.as_array_mut()?.iter_mut().find(|item| is_item(item, element)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::builtin;

    fn map(data: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
    }

    fn apply(live: &Value, data: Value, manager: &str, force: bool) -> Result<Value, Vec<Conflict>> {
        let registry = builtin::registry();
        let resource = registry.get("", "v1", "configmaps").unwrap();
        applied(resource, live, &map(data), manager, "", force)
    }

    #[test]
    fn managers_share_an_object_field_by_field() {
        let first = apply(&json!({}), json!({"a": "1", "b": "2"}), "alpha", false).unwrap();
        let second = apply(&first, json!({"c": "1"}), "beta", false).unwrap();
        assert_eq!(second["data"], json!({"a": "1", "b": "2", "c": "1"}));
        let conflicts = apply(&second, json!({"b": "9"}), "beta", false).unwrap_err();
        assert_eq!(conflicts, [Conflict { with: "conflict with \"alpha\"".into(), field: ".data.b".into() }]);
        assert_eq!(
            Conflict::refusal(&conflicts).message,
            "Apply failed with 1 conflict: conflict with \"alpha\": .data.b"
        );

        // Taken by force; what beta no longer names and nobody else owns goes.
        let third = apply(&second, json!({"b": "9"}), "beta", true).unwrap();
        assert_eq!(third["data"], json!({"a": "1", "b": "9"}));
        let fields = third["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(fields[0]["fieldsV1"], json!({"f:data": {"f:a": {}}}));
        assert_eq!(fields[1]["fieldsV1"], json!({"f:data": {"f:b": {}}}));

        // The same value is shared; leaving it then leaves it in place.
        let fourth = apply(&third, json!({"b": "9"}), "gamma", false).unwrap();
        let fifth = apply(&fourth, json!({}), "beta", false).unwrap();
        assert_eq!(fifth["data"], json!({"a": "1", "b": "9"}));
    }

    #[test]
    fn list_items_go_with_their_owner() {
        let registry = builtin::registry();
        let resource = registry.get("apps", "v1", "deployments").unwrap();
        let with = |containers: Value| json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let first = applied(
            resource,
            &json!({}),
            &with(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
            "x",
            "",
            false,
        )
        .unwrap();
        let second = applied(resource, &first, &with(json!([{"name": "b", "image": "2"}])), "x", "", false).unwrap();
        assert_eq!(second["spec"]["template"]["spec"]["containers"], json!([{"name": "b", "image": "2"}]));
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let first = apply(&json!({}), json!({"a": "1"}), "alpha", false).unwrap();
        assert_eq!(apply(&first, json!({"a": "1"}), "alpha", false).unwrap(), first);
    }
}
