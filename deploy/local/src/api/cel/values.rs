//! JSON as CEL sees it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::CelValue;

/// Words of the language that can't be names of fields: they are written `__word__`.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// A document without a schema: keys stay as they are.
pub fn plain(value: &Value) -> CelValue {
    match value {
        Value::Object(map) => object(map.iter().map(|(key, value)| (key.clone(), plain(value)))),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(plain).collect())),
        other => scalar(other, false),
    }
}

/// A value of a schema: names of fields are escaped as Kubernetes does, numbers are of the schema's type.
pub fn typed(schema: &Value, value: &Value) -> CelValue {
    match value {
        Value::Object(map) => object(fields(schema, map)),
        Value::Array(items) => {
            let of = schema.get("items").unwrap_or(&Value::Null);
            CelValue::List(Arc::new(items.iter().map(|item| typed(of, item)).collect()))
        }
        other => scalar(other, schema.get("type").is_some_and(|kind| kind == "number")),
    }
}

fn fields(schema: &Value, map: &Map<String, Value>) -> impl Iterator<Item = (String, CelValue)> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let additional = schema.get("additionalProperties").unwrap_or(&Value::Null);
    map.iter().map(move |(key, value)| match properties.and_then(|properties| properties.get(key)) {
        Some(schema) => (escaped(key), typed(schema, value)),
        None if additional.is_null() => (escaped(key), plain(value)),
        None => (key.clone(), typed(additional, value)),
    })
}

fn object(fields: impl Iterator<Item = (String, CelValue)>) -> CelValue {
    CelValue::Map(fields.collect::<HashMap<_, _>>().into())
}

fn scalar(value: &Value, double: bool) -> CelValue {
    match value {
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Number(number) => match number.as_i64() {
            Some(number) if !double => CelValue::Int(number),
            _ => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        _ => CelValue::Null,
    }
}

/// The name of a field within an expression.
fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (piece, used) = match c {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            _ => (&rest[..c.len_utf8()], c.len_utf8()),
        };
        out.push_str(piece);
        rest = &rest[used..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_kubernetes_does() {
        assert_eq!(escaped("namespace"), "__namespace__");
        assert_eq!(escaped("x-y.z/a"), "x__dash__y__dot__z__slash__a");
        assert_eq!(escaped("a__b_c"), "a__underscores__b_c");
        assert_eq!(escaped("größe"), "größe");
    }
}
