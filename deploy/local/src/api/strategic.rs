//! Strategic merge patch: a merge patch whose lists are merged by key where the kind says so.
//!
//! The directives `$patch` (`replace`, `delete`, `merge`), `$deleteFromPrimitiveList/…`, `$setElementOrder/…` and
//! `$retainKeys` are followed as kubectl writes them.

use serde_json::{Map, Value};

use super::lists::{is_merged_set, merge_key};

/// Merges a patch into an object. The error is the message of a patch that can't be merged.
pub fn merge(object: &mut Value, patch: &Value) -> Result<(), String> {
    merge_value(object, patch, &mut Vec::new())
}

fn merge_value<'a>(target: &mut Value, patch: &'a Value, path: &mut Vec<&'a str>) -> Result<(), String> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(without_directives(patch));
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("unknown patch type: {other} in map: map[$patch:{other}]")),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    if let Some(retained) = patch.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| retained.iter().any(|kept| kept == key));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if let Some(Value::Array(list)) = target.get_mut(field) {
                list.retain(|item| !gone.contains(item));
            }
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        path.push(key);
        let merged = merge_field(target, key, value, path);
        path.pop();
        merged?;
    }
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix("$setElementOrder/") {
            path.push(field);
            set_order(target.get_mut(field), order, path);
            path.pop();
        }
    }
    Ok(())
}

fn merge_field<'a>(
    target: &mut Map<String, Value>,
    key: &'a str,
    value: &'a Value,
    path: &mut Vec<&'a str>,
) -> Result<(), String> {
    match value {
        Value::Null => {
            target.remove(key);
        }
        Value::Array(items) => {
            let list = target.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            if !list.is_array() {
                *list = Value::Array(Vec::new());
            }
            if let Value::Array(list) = list {
                merge_list(list, items, path)?;
            }
        }
        Value::Object(map) => {
            let child = target.entry(key).or_insert_with(|| Value::Object(Map::new()));
            merge_value(child, value, path)?;
            if map.get("$patch").is_some_and(|directive| directive == "delete") {
                target.remove(key);
            }
        }
        scalar => {
            target.insert(key.into(), scalar.clone());
        }
    }
    Ok(())
}

fn merge_list<'a>(target: &mut Vec<Value>, patch: &'a [Value], path: &mut Vec<&'a str>) -> Result<(), String> {
    let replace = patch.iter().any(|item| item.get("$patch").is_some_and(|d| d == "replace"));
    if replace {
        *target = patch.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
        return Ok(());
    }
    if is_merged_set(path) {
        for item in patch.iter().filter(|item| !target.contains(item)).cloned().collect::<Vec<_>>() {
            target.push(item);
        }
        return Ok(());
    }
    let Some(key) = patch_key(path, patch) else {
        *target = patch.to_vec();
        return Ok(());
    };
    let before = target.clone();
    for item in patch {
        let identity =
            item.get(key).ok_or_else(|| format!("map: {item} does not contain declared merge key: {key}"))?;
        let position = target.iter().position(|existing| existing.get(key) == Some(identity));
        let delete = item.get("$patch").is_some_and(|d| d == "delete");
        match (position, delete) {
            (Some(position), true) => {
                target.remove(position);
            }
            (None, true) => {}
            (Some(position), false) => merge_value(&mut target[position], item, path)?,
            (None, false) => {
                let mut new = Value::Object(Map::new());
                merge_value(&mut new, item, path)?;
                target.push(new);
            }
        }
    }
    interleave(target, patch, &before, key);
    Ok(())
}

/// Puts the items of the patch, in its order, among those it doesn't name: before the first one that isn't known to come earlier.
fn interleave(list: &mut Vec<Value>, patch: &[Value], before: &[Value], key: &str) {
    let same = |a: &Value, b: &Value| a.get(key) == b.get(key);
    let place = |items: &[Value], wanted: &Value| items.iter().position(|item| same(item, wanted));
    let (mut named, rest): (Vec<Value>, Vec<Value>) =
        std::mem::take(list).into_iter().partition(|i| place(patch, i).is_some());
    named.sort_by_key(|item| place(patch, item));
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    while let (Some(theirs), Some(mine)) = (named.peek(), rest.peek()) {
        let mine_first = matches!((place(before, mine), place(before, theirs)), (Some(m), Some(t)) if m < t);
        list.extend(if mine_first { rest.next() } else { named.next() });
    }
    list.extend(named.chain(rest));
}

fn patch_key(path: &[&str], patch: &[Value]) -> Option<&'static str> {
    merge_key(path, &Value::Array(patch.to_vec()))
}

/// Puts the items of a list in the order a client saw them in; what the client didn't know stays behind them.
fn set_order(list: Option<&mut Value>, order: &Value, path: &[&str]) {
    let (Some(Value::Array(list)), Some(order)) = (list, order.as_array()) else { return };
    let key = merge_key(path, &Value::Array(list.clone()));
    let place = |item: &Value| {
        order
            .iter()
            .position(|wanted| match key {
                Some(key) => wanted.get(key).is_some() && wanted.get(key) == item.get(key),
                None => wanted == item,
            })
            .unwrap_or(usize::MAX)
    };
    list.sort_by_key(place);
}

fn without_directives(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter().filter(|(key, _)| !key.starts_with('$')).map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(object: Value, patch: Value) -> Value {
        let mut object = object;
        merge(&mut object, &patch).unwrap();
        object
    }

    fn pod(containers: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn containers_are_merged_by_name() {
        let object = pod(json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]));
        let patch = pod(json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}]));
        let expected = json!([{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}, {"name": "b"}]);
        assert_eq!(merged(object, patch), pod(expected));
    }

    #[test]
    fn items_are_deleted_and_ordered() {
        let object = pod(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]));
        let mut patch = pod(json!([{"name": "b", "$patch": "delete"}]));
        patch["spec"]["template"]["spec"]["$setElementOrder/containers"] = json!([{"name": "c"}, {"name": "a"}]);
        assert_eq!(merged(object, patch), pod(json!([{"name": "c"}, {"name": "a"}])));
    }

    #[test]
    fn other_lists_are_replaced_and_nulls_remove() {
        let object = json!({"spec": {"args": [1, 2], "x": 1, "ports": [{"port": 80, "name": "a"}]}});
        let patch = json!({"spec": {"args": [3], "x": null, "ports": [{"port": 81}]}});
        assert_eq!(
            merged(object, patch),
            json!({"spec": {"args": [3], "ports": [{"port": 81}, {"port": 80, "name": "a"}]}})
        );
    }

    #[test]
    fn directives_replace_delete_and_retain() {
        let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}, "m": {"a": 1}, "n": {"b": 1}},
            "metadata": {"finalizers": ["a", "b"]}});
        let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "m": {"$patch": "replace", "c": 1}, "n": {"$patch": "delete"}},
            "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}});
        assert_eq!(
            merged(object, patch),
            json!({"spec": {"strategy": {"type": "Recreate"}, "m": {"c": 1}}, "metadata": {"finalizers": ["b", "c"]}})
        );
    }

    #[test]
    fn a_list_item_needs_its_key() {
        let mut object = pod(json!([]));
        assert!(merge(&mut object, &pod(json!([{"image": "x"}]))).unwrap_err().contains("declared merge key: name"));
    }
}
