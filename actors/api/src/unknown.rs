//! Finds the fields of an object that its type doesn't know.

use serde_json::Value;

/// Paths of the members of `given` that `known` (the same object, read into its type and written again) lacks.
/// A `null` in `known` is a field that is known and unset; below a field that the type keeps as free JSON both are equal.
pub(crate) fn unknown_fields(given: &Value, known: &Value, path: &str) -> Vec<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given
            .iter()
            .flat_map(|(key, value)| {
                let path = format!("{path}.{key}");
                match known.get(key) {
                    Some(known) => unknown_fields(value, known, &path),
                    None => vec![path],
                }
            })
            .collect(),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .flat_map(|(index, (given, known))| unknown_fields(given, known, &format!("{path}[{index}]")))
            .collect(),
        _ => Vec::new(),
    }
}
