//! `x-kubernetes-validations`: rules of a schema, in CEL.

use serde_json::{Map, Value, json};

use super::validate::type_name;
use crate::api::cel::{CelValue, Expression, typed};
use crate::api::object::{items, text};
use crate::api::status::FieldError;

const RULES: &str = "x-kubernetes-validations";

/// What the rules of a schema refuse. `old` is the object before an update.
pub fn check(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if has_rules(schema) {
        walk(schema, &rooted(object), old.map(rooted).as_ref(), "", &mut errors);
    }
    errors
}

/// What is wrong with the rules of a schema: those that are no CEL. The path is that of the schema.
pub fn check_schema(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (i, rule) in items(schema, &[RULES]).iter().enumerate() {
        for field in ["rule", "messageExpression"] {
            let source = text(rule, &[field]);
            if !source.is_empty()
                && let Err(error) = Expression::parse(source)
            {
                let value = json!(source);
                errors.push(FieldError::invalid(format!("{path}.{RULES}[{i}].{field}"), &value, error.to_string()));
            }
        }
    }
    for (name, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        check_schema(child, &format!("{path}.properties[{name}]"), errors);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(name) {
            check_schema(child, &format!("{path}.{name}"), errors);
        }
    }
}

fn has_rules(schema: &Value) -> bool {
    let children = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|p| p.values());
    schema.get(RULES).is_some()
        || children.chain(schema.get("items")).chain(schema.get("additionalProperties")).any(has_rules)
}

/// An object as rules at the root see it: of its metadata only the names.
fn rooted(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| matches!(key.as_str(), "name" | "generateName"));
    }
    object
}

fn walk(schema: &Value, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() {
        return;
    }
    let rules = items(schema, &[RULES]);
    if !rules.is_empty() {
        let now = typed(schema, value);
        let before = old.filter(|old| !old.is_null()).map(|old| typed(schema, old));
        errors.extend(rules.iter().filter_map(|rule| broken(rule, &now, before.as_ref(), value, path)));
    }
    match value {
        Value::Object(map) => walk_fields(schema, map, old, path, errors),
        Value::Array(list) => {
            let Some(item_schema) = schema.get("items") else { return };
            for (i, item) in list.iter().enumerate() {
                walk(item_schema, item, same_item(schema, item, old), &format!("{path}[{i}]"), errors);
            }
        }
        _ => {}
    }
}

fn walk_fields(
    schema: &Value,
    map: &Map<String, Value>,
    old: Option<&Value>,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, child) in map {
        let known = properties.and_then(|p| p.get(key));
        let Some(child_schema) = known.or_else(|| schema.get("additionalProperties")) else { continue };
        let path = match (known, path) {
            (Some(_), "") => key.clone(),
            (Some(_), _) => format!("{path}.{key}"),
            (None, _) => format!("{path}[{key}]"),
        };
        walk(child_schema, child, old.and_then(|old| old.get(key)), &path, errors);
    }
}

/// The item of the old list that became this one: only lists that are maps tell.
fn same_item<'a>(schema: &Value, item: &Value, old: Option<&'a Value>) -> Option<&'a Value> {
    if text(schema, &["x-kubernetes-list-type"]) != "map" {
        return None;
    }
    let keys = items(schema, &["x-kubernetes-list-map-keys"]);
    let same = |other: &&Value| keys.iter().filter_map(Value::as_str).all(|key| other.get(key) == item.get(key));
    old?.as_array()?.iter().find(same)
}

/// What a rule has against a value, if anything.
fn broken(rule: &Value, now: &CelValue, before: Option<&CelValue>, value: &Value, path: &str) -> Option<FieldError> {
    let source = text(rule, &["rule"]);
    let complain = |why: String| FieldError::invalid(path, &shown(value), why);
    let expression = match Expression::parse(source) {
        Ok(expression) => expression,
        Err(error) => return Some(complain(error.to_string())),
    };
    let mut variables = vec![("self", now.clone())];
    match (expression.names("oldSelf"), before) {
        // About a change: there is none.
        (true, None) => return None,
        (true, Some(before)) => variables.push(("oldSelf", before.clone())),
        (false, _) => {}
    }
    match expression.truth(&variables) {
        Ok(true) => None,
        Ok(false) => Some(refusal(rule, &variables, value, path)),
        Err(error) => Some(complain(format!("{error} evaluating rule: {}", said(rule)))),
    }
}

/// What a rule says of itself when it has nothing better to say.
fn said(rule: &Value) -> String {
    match text(rule, &["message"]) {
        "" => format!("failed rule: {}", text(rule, &["rule"]).trim()),
        message => message.to_owned(),
    }
}

fn refusal(rule: &Value, variables: &[(&str, CelValue)], value: &Value, path: &str) -> FieldError {
    let computed = Some(text(rule, &["messageExpression"])).filter(|source| !source.is_empty()).and_then(|source| {
        let message = Expression::parse(source).and_then(|expression| expression.text(variables)).ok()?;
        let message = message.trim().to_owned();
        (!message.is_empty() && !message.contains('\n')).then_some(message)
    });
    let message = computed.unwrap_or_else(|| said(rule));
    let path = match text(rule, &["fieldPath"]) {
        "" => path.to_owned(),
        more => format!("{path}{more}").trim_start_matches('.').to_owned(),
    };
    match text(rule, &["reason"]) {
        "FieldValueRequired" => FieldError::required(path, &message),
        "FieldValueForbidden" => FieldError::forbidden(path, &message),
        "FieldValueDuplicate" => FieldError::duplicate(path, &shown(value)),
        _ => FieldError::invalid(path, &shown(value), message),
    }
}

/// A value in a refusal: of what has parts only the type.
fn shown(value: &Value) -> Value {
    if value.is_object() || value.is_array() { json!(type_name(value)) } else { value.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules of the kinds that Gateway API and other common definitions have.
    fn schema() -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object",
        "x-kubernetes-validations": [
            {"rule": "!has(self.min) || !has(self.max) || self.min <= self.max", "message": "min must not be above max"},
            {"rule": "has(self.min) || !has(self.class)", "reason": "FieldValueRequired", "fieldPath": ".min"},
            {"rule": "!has(self.rules) || self.rules.all(r, r.path.startsWith('/'))",
                "messageExpression": "'bad paths: ' + self.rules.filter(r, !r.path.startsWith('/')).map(r, r.path).join(' ')"},
        ],
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"},
            "class": {"type": "string", "x-kubernetes-validations":
                [{"rule": "self == oldSelf", "message": "class is immutable", "reason": "FieldValueForbidden"}]},
            "rules": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "path": {"type": "string"},
                    "port": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}},
            "timeouts": {"type": "object", "properties": {"request": {"type": "string"}, "backend": {"type": "string"}},
                "x-kubernetes-validations": [{"rule":
                    "!(has(self.request) && has(self.backend) && duration(self.request) != duration('0s') && duration(self.backend) > duration(self.request))",
                    "message": "the backend's timeout is within the request's"}]},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "x-kubernetes-validations":
                [{"rule": "self != ''", "message": "empty"}]}},
        }}}})
    }

    fn refused(spec: Value, old: Option<Value>) -> Vec<String> {
        let (object, old) = (json!({"spec": spec}), old.map(|spec| json!({"spec": spec})));
        check(&schema(), &object, old.as_ref()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_see_the_value_they_stand_at() {
        assert_eq!(refused(json!({"min": 1, "max": 2}), None), Vec::<String>::new());
        assert_eq!(
            refused(json!({"min": 3, "max": 2}), None),
            ["spec: Invalid value: \"object\": min must not be above max"]
        );
        assert_eq!(
            refused(json!({"class": "a"}), None),
            ["spec.min: Required value: failed rule: has(self.min) || !has(self.class)"]
        );
        assert_eq!(
            refused(json!({"timeouts": {"request": "1s", "backend": "2s"}}), None),
            ["spec.timeouts: Invalid value: \"object\": the backend's timeout is within the request's"]
        );
        assert_eq!(refused(json!({"labels": {"a": ""}}), None), ["spec.labels[a]: Invalid value: \"\": empty"]);
    }

    #[test]
    fn messages_may_be_computed() {
        let rules = json!([{"name": "a", "path": "/a"}, {"name": "b", "path": "b"}]);
        assert_eq!(refused(json!({"rules": rules}), None), ["spec: Invalid value: \"object\": bad paths: b"]);
    }

    #[test]
    fn rules_about_changes_compare_with_what_was_there() {
        let with = |class: &str| json!({"min": 1, "class": class});
        assert_eq!(refused(with("b"), None), Vec::<String>::new());
        assert_eq!(refused(with("b"), Some(json!({"min": 1}))), Vec::<String>::new());
        assert_eq!(refused(with("b"), Some(with("a"))), ["spec.class: Forbidden: class is immutable"]);
        let ports = |a: i32, b: i32| json!({"rules": [{"name": "a", "path": "/", "port": a}, {"name": "b", "path": "/", "port": b}]});
        let turned = json!({"rules": [{"name": "b", "path": "/", "port": 1}, {"name": "a", "path": "/", "port": 5}]});
        assert_eq!(refused(ports(5, 2), Some(turned)), Vec::<String>::new());
        assert_eq!(
            refused(ports(4, 2), Some(ports(5, 2))),
            ["spec.rules[0].port: Invalid value: 4: failed rule: self >= oldSelf"]
        );
    }
}
