//! Structural schemas: what is wrong with a custom object.

use regex::Regex;
use serde_json::{Map, Value};

use super::schema::flag;
use crate::api::status::FieldError;

/// What is wrong with an object, as field errors.
pub fn validate(schema: &Value, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let skip = ["apiVersion", "kind", "metadata"];
    check_object(schema, object.as_object(), "", &skip, &mut errors);
    errors
}

fn check(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && flag(schema, "nullable") {
        return;
    }
    if let Some(wanted) = wrong_type(schema, value) {
        let found = Value::String(type_name(value).into());
        let detail = format!("{path} in body must be of type {wanted}: \"{}\"", type_name(value));
        errors.push(FieldError::wrong_type(path, &found, detail));
        return;
    }
    match value {
        Value::Object(map) => check_object(schema, Some(map), path, &[], errors),
        Value::Array(items) => check_array(schema, items, path, errors),
        Value::String(text) => check_text(schema, text, path, errors),
        Value::Number(_) => check_number(schema, value, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let texts: Vec<String> = allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), Into::into)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        errors.push(FieldError::unsupported(path, value, &texts));
    }
    check_combinations(schema, value, path, errors);
}

fn check_object(
    schema: &Value,
    map: Option<&Map<String, Value>>,
    path: &str,
    skip: &[&str],
    errors: &mut Vec<FieldError>,
) {
    let Some(map) = map else { return };
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(required) {
            errors.push(FieldError::required(join(required), ""));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, child) in map.iter().filter(|(key, _)| !skip.contains(&key.as_str())) {
        if let Some(child_schema) = properties.and_then(|p| p.get(key)) {
            check(child_schema, child, &join(key), errors);
        } else if let Some(additional @ Value::Object(_)) = schema.get("additionalProperties") {
            check(additional, child, &join(key), errors);
        }
    }
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(most) = bound("maxProperties").filter(|most| map.len() as u64 > *most) {
        errors.push(FieldError::too_many(path, map.len(), most));
    }
    if let Some(least) = bound("minProperties").filter(|least| (map.len() as u64) < *least) {
        let detail = format!("{path} in body should have at least {least} properties");
        errors.push(FieldError::invalid(path, &Value::from(map.len()), detail));
    }
}

fn check_array(schema: &Value, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    if let Some(most) = bound("maxItems").filter(|most| items.len() as u64 > *most) {
        errors.push(FieldError::too_many(path, items.len(), most));
    }
    if let Some(least) = bound("minItems").filter(|least| (items.len() as u64) < *least) {
        let detail = format!("{path} in body should have at least {least} items");
        errors.push(FieldError::invalid(path, &Value::from(items.len()), detail));
    }
    if let Some(item_schema) = schema.get("items") {
        for (i, item) in items.iter().enumerate() {
            check(item_schema, item, &format!("{path}[{i}]"), errors);
        }
    }
    let keys: Option<Vec<&str>> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("map") => Some(
            schema
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
        ),
        Some("set") => Some(Vec::new()),
        _ => None,
    };
    let Some(keys) = keys else { return };
    let mut seen = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let identity = if keys.is_empty() {
            item.clone()
        } else {
            Value::Object(keys.iter().filter_map(|k| Some(((*k).to_owned(), item.get(*k)?.clone()))).collect())
        };
        if seen.contains(&identity) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), &identity));
        } else {
            seen.push(identity);
        }
    }
}

fn check_text(schema: &Value, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let value = Value::String(text.into());
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let length = text.chars().count() as u64;
    if let Some(most) = bound("maxLength").filter(|most| length > *most) {
        errors.push(FieldError::too_long(path, format!("may not be more than {most} bytes")));
    }
    if let Some(least) = bound("minLength").filter(|least| length < *least) {
        let detail = format!("{path} in body should be at least {least} chars long");
        errors.push(FieldError::invalid(path, &value, detail));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Ok(regex) = Regex::new(pattern)
        && !regex.is_match(text)
    {
        errors.push(FieldError::invalid(path, &value, format!("{path} in body should match '{pattern}'")));
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    let good = match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        _ => true,
    };
    if !good {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        errors.push(FieldError::wrong_type(path, &value, detail));
    }
}

fn check_number(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(number) = value.as_f64() else { return };
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let mut refuse = |detail: String| errors.push(FieldError::invalid(path, value, format!("{path} in body {detail}")));
    if let Some(least) = bound("minimum") {
        let shown = &schema["minimum"];
        if flag(schema, "exclusiveMinimum") && number <= least {
            refuse(format!("should be greater than {shown}"));
        } else if number < least {
            refuse(format!("should be greater than or equal to {shown}"));
        }
    }
    if let Some(most) = bound("maximum") {
        let shown = &schema["maximum"];
        if flag(schema, "exclusiveMaximum") && number >= most {
            refuse(format!("should be less than {shown}"));
        } else if number > most {
            refuse(format!("should be less than or equal to {shown}"));
        }
    }
    if let Some(step) = bound("multipleOf").filter(|step| *step > 0.0)
        && (number / step).fract() != 0.0
    {
        refuse(format!("should be a multiple of {}", schema["multipleOf"]));
    }
    let (least, most) = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (f64::from(i32::MIN), f64::from(i32::MAX)),
        _ => return,
    };
    if number < least || number > most {
        refuse(format!("must be of type int32: {value}"));
    }
}

fn check_combinations(schema: &Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let branches = |name: &str| schema.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let holds = |branch: &Value| {
        let mut problems = Vec::new();
        check(branch, value, path, &mut problems);
        problems.is_empty()
    };
    for branch in branches("allOf") {
        check(branch, value, path, errors);
    }
    let (any, one) = (branches("anyOf"), branches("oneOf"));
    if !any.is_empty() && !any.iter().any(holds) {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body must validate at least one schema (anyOf)"),
        ));
    }
    if !one.is_empty() && one.iter().filter(|b| holds(b)).count() != 1 {
        errors.push(FieldError::invalid(
            path,
            value,
            format!("{path} in body must validate one and only one schema (oneOf)"),
        ));
    }
    if schema.get("not").is_some_and(holds) {
        errors.push(FieldError::invalid(path, value, format!("{path} in body must not validate the schema (not)")));
    }
}

/// The type a value should have, when it has another.
fn wrong_type(schema: &Value, value: &Value) -> Option<String> {
    if flag(schema, "x-kubernetes-int-or-string") {
        let good = value.is_string() || value.is_i64() || value.is_u64();
        return (!good).then(|| "integer,string".into());
    }
    let wanted = schema.get("type").and_then(Value::as_str)?;
    let good = match wanted {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        _ => true,
    };
    (!good).then(|| wanted.into())
}

pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
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

    fn problems(spec: Value) -> Vec<String> {
        validate(&widget(), &json!({"spec": spec})).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn messages_are_those_of_a_real_server() {
        assert_eq!(problems(json!({})), ["spec.size: Required value"]);
        assert_eq!(
            problems(json!({"size": 99})),
            ["spec.size: Invalid value: 99: spec.size in body should be less than or equal to 10"]
        );
        assert_eq!(
            problems(json!({"size": "text"})),
            ["spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\""]
        );
        assert_eq!(
            problems(json!({"size": 3, "color": "blue"})),
            ["spec.color: Unsupported value: \"blue\": supported values: \"red\", \"green\""]
        );
        assert_eq!(
            problems(json!({"size": 3, "names": ["UP", "ok"]})),
            ["spec.names[0]: Invalid value: \"UP\": spec.names[0] in body should match '^[a-z]+$'"]
        );
        assert_eq!(
            problems(json!({"size": 3, "names": ["a", "b", "c", "d"]})),
            ["spec.names: Too many: 4: must have at most 3 items"]
        );
        assert_eq!(
            problems(json!({"size": 3, "parts": [{"name": "x"}, {"name": "x"}]})),
            ["spec.parts[1]: Duplicate value: {\"name\":\"x\"}"]
        );
        assert_eq!(
            problems(json!({"size": 3, "port": true})),
            ["spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\""]
        );
        assert_eq!(problems(json!({"size": 3, "maybe": null, "port": "http", "free": {"x": 1}})), Vec::<String>::new());
    }
}
