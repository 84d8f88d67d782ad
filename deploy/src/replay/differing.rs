//! Differences between two versions of something, line by line.

use bytes::Bytes;
use fsm_proxy_config::{Resource, ResourceName};
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use super::paint::Paint;

/// Lines around a change that are shown with it.
const CONTEXT: usize = 2;

/// A value as people read it.
pub(super) fn yaml(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        value => serde_yaml::to_string(value).unwrap_or_else(|error| format!("can't be shown as YAML: {error}\n")),
    }
}

/// The lines that differ, each with `-`, `+` or a blank before it; `…` stands for what is left out.
pub(super) fn lines(before: &Value, after: &Value) -> Vec<String> {
    let (before, after) = (yaml(before), yaml(after));
    let diff = TextDiff::from_lines(&before, &after);
    let mut lines = Vec::new();
    for (index, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
        if index > 0 {
            lines.push("  …".to_owned());
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            lines.push(format!("{sign} {}", change.value().trim_end()));
        }
    }
    lines
}

/// The same with colours.
pub(super) fn painted(paint: Paint, line: &str) -> String {
    match line.as_bytes().first() {
        Some(b'-') => paint.bad(line),
        Some(b'+') => paint.good(line),
        _ => paint.dim(line),
    }
}

/// An object without what changes with every write and says nothing.
pub(super) fn essence(json: &str) -> Value {
    let mut object: Value = serde_json::from_str(json).unwrap_or(Value::Null);
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        for noise in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(noise);
        }
    }
    object
}

/// A resource by its bytes; null if there is none.
pub(super) fn resource_json(name: &ResourceName, bytes: Option<&Bytes>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match Resource::decode(name.kind, bytes) {
        Ok(resource) => resource.to_json(),
        Err(error) => serde_json::json!({ "error": error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_shown_with_what_is_around_it() {
        let before = json!({ "a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7, "h": 8 });
        let after = json!({ "a": 0, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7 });
        let expected = ["- a: 1", "+ a: 0", "  b: 2", "  c: 3", "  …", "  f: 6", "  g: 7", "- h: 8"];
        assert_eq!(lines(&before, &after), expected);
        assert_eq!(lines(&Value::Null, &json!({ "a": 1 })), ["+ a: 1"]);
        assert_eq!(lines(&after, &after), Vec::<String>::new());
    }

    #[test]
    fn bookkeeping_is_no_part_of_an_object() {
        let one = essence(r#"{"metadata":{"name":"a","resourceVersion":"1","managedFields":[1]}}"#);
        assert_eq!(one, essence(r#"{"metadata":{"name":"a","resourceVersion":"2","generation":2}}"#));
    }
}
