//! From a request body to an object of the resource it was sent to.

use serde_json::{Value, json};

use super::cel::quantity;
use super::object::{as_map, metadata, name, text};
use super::options::FieldValidation;
use super::path::Target;
use super::resource::{Resource, Shape};
use super::status::ApiError;
use super::{crd, events};

/// An object as its resource reads it, and the fields that were dropped because nobody knows them.
#[derive(Debug)]
pub struct Decoded {
    pub object: Value,
    pub unknown: Vec<String>,
}

/// Reads an object as its resource: unknown fields fall away, wrong types are refused, `apiVersion` and `kind` are filled in.
pub fn decode(resource: &Resource, mut body: Value) -> Result<Decoded, ApiError> {
    check_kind(resource, &mut body)?;
    match &resource.shape {
        Shape::BuiltIn(typed) => {
            let object = typed(body.clone()).map_err(|error| {
                ApiError::bad_request(format!(
                    "{kind} in version {:?} cannot be handled as a {kind}: {error}",
                    resource.version,
                    kind = resource.kind
                ))
            })?;
            // The schema of a custom resource may have fields of any name.
            let amounts = Some(&object).filter(|_| resource.kind != "CustomResourceDefinition");
            if let Some(wrong) = amounts.and_then(wrong_quantity) {
                return Err(ApiError::bad_request(format!(
                    "{kind} in version {:?} cannot be handled as a {kind}: quantities must match the regular expression \
                     '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {wrong}",
                    resource.version,
                    kind = resource.kind
                )));
            }
            let mut unknown = Vec::new();
            dropped(&body, &object, "", &mut unknown);
            let mut object = object;
            if resource.group == "apiextensions.k8s.io" {
                whole_numbers(&mut object);
            } else {
                drop_empty(&mut object);
            }
            Ok(Decoded { object, unknown })
        }
        Shape::Custom(version) => {
            check_metadata(resource, &mut body)?;
            crd::schema::drop_nulls(&version.schema, &mut body);
            let unknown = crd::schema::prune(&version.schema, &mut body);
            crd::schema::default(&version.schema, &mut body);
            Ok(Decoded { object: body, unknown })
        }
        Shape::Review => Ok(Decoded { object: body, unknown: Vec::new() }),
    }
}

/// An amount of something that is no quantity.
fn wrong_quantity(value: &Value) -> Option<&Value> {
    match value {
        Value::Object(map) => map.iter().find_map(|(key, child)| match (key.as_str(), child.as_object()) {
            ("limits" | "requests", Some(amounts)) => {
                amounts.values().find(|amount| amount.as_str().is_some_and(|amount| quantity(amount).is_none()))
            }
            _ => wrong_quantity(child),
        }),
        Value::Array(items) => items.iter().find_map(wrong_quantity),
        _ => None,
    }
}

fn check_kind(resource: &Resource, body: &mut Value) -> Result<(), ApiError> {
    let (wanted_version, wanted_kind) = (resource.api_version(), resource.kind.as_str());
    let Value::Object(map) = body else {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {wanted_kind}): it is no JSON object"
        )));
    };
    let given = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (given("apiVersion"), given("kind"));
    if resource.custom().is_some() && kind.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {wanted_kind}): Object 'Kind' is missing"
        )));
    }
    if !version.is_empty() && version != wanted_version {
        return Err(if resource.custom().is_some() {
            ApiError::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({wanted_version})"
            ))
        } else {
            ApiError::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {wanted_kind}: no kind {kind:?} is registered for version {version:?}",
                resource.version
            ))
        });
    }
    if !kind.is_empty() && kind != wanted_kind {
        if resource.custom().is_some() {
            let error = super::status::FieldError::invalid("kind", &json!(kind), format!("must be {wanted_kind}"));
            let named = Resource { kind, ..resource.clone() };
            return Err(ApiError::invalid(&named, map.get("metadata").map_or("", |m| text(m, &["name"])), &[error]));
        }
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {wanted_kind}: unknown conversion",
            resource.version
        )));
    }
    map.insert("apiVersion".into(), json!(wanted_version));
    map.insert("kind".into(), json!(wanted_kind));
    Ok(())
}

/// Custom objects have the same metadata as everything else.
fn check_metadata(resource: &Resource, body: &mut Value) -> Result<(), ApiError> {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde::Deserialize;
    let given = as_map(body).remove("metadata").unwrap_or_else(|| json!({}));
    let read = ObjectMeta::deserialize(given).and_then(serde_json::to_value).map_err(|error| {
        ApiError::bad_request(format!(
            "{} in version {:?} has unreadable metadata: {error}",
            resource.kind, resource.version
        ))
    })?;
    as_map(body).insert("metadata".into(), read);
    Ok(())
}

/// Maps that are left out when they are empty.
const FREE_MAPS: [&str; 7] = ["labels", "annotations", "data", "binaryData", "nodeSelector", "limits", "requests"];

/// Leaves out empty lists, and empty maps whose keys are the user's, as a real server does.
fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, child| {
                drop_empty(child);
                let free = FREE_MAPS.contains(&key.as_str());
                let no_items = child.as_array().is_some_and(Vec::is_empty);
                let no_keys = child.as_object().is_some_and(serde_json::Map::is_empty);
                !(no_items || (free && no_keys))
            });
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

/// Schemas say `maximum: 10`, which the type reads as 10.0.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Number(number) => {
            let whole = number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0 && n.abs() < 9.0e15);
            if let Some(text) = whole.map(|n| format!("{n:.0}"))
                && let Ok(integer) = text.parse::<i64>()
            {
                *value = json!(integer);
            }
        }
        _ => {}
    }
}

/// The paths of fields that are in `before` and were lost on the way to `after`. Nulls are no fields.
fn dropped(before: &Value, after: &Value, path: &str, out: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match after.get(key) {
                    Some(kept) => dropped(value, kept, &path, out),
                    None => out.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (i, (before, after)) in before.iter().zip(after).enumerate() {
                dropped(before, after, &format!("{path}[{i}]"), out);
            }
        }
        _ => {}
    }
}

/// What becomes of unknown fields: an error, warnings, or nothing.
pub fn unknown_fields(
    unknown: &[String],
    validation: FieldValidation,
    resource: &Resource,
) -> Result<Vec<String>, ApiError> {
    let messages: Vec<String> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
    match validation {
        _ if messages.is_empty() => Ok(Vec::new()),
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(messages),
        FieldValidation::Strict => {
            let message = format!("strict decoding error: {}", messages.join(", "));
            Err(ApiError::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {message}",
                resource.version,
                kind = resource.kind
            )))
        }
    }
}

/// Makes the object's name and namespace those of the URL, and refuses others.
pub fn check_place(target: &Target, object: &mut Value) -> Result<(), ApiError> {
    let given = super::object::namespace(object).to_owned();
    match &target.namespace {
        Some(namespace) if given.is_empty() => {
            metadata(object).insert("namespace".into(), json!(namespace));
        }
        Some(namespace) if given != *namespace => {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        Some(_) => {}
        None => {
            metadata(object).remove("namespace");
        }
    }
    if let Some(wanted) = &target.name {
        let given = name(object).to_owned();
        if given.is_empty() {
            metadata(object).insert("name".into(), json!(wanted));
        } else if given != *wanted {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({wanted})"
            )));
        }
    }
    Ok(())
}

/// Turns an object into the form in which it is kept. `stored` is the `apiVersion` of that form.
pub fn to_storage(resource: &Resource, stored: &str, object: &mut Value) {
    if resource.is("events.k8s.io", "events") {
        events::to_core_v1(object);
    } else if object["apiVersion"] != *stored {
        object["apiVersion"] = json!(stored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::builtin;

    #[test]
    fn unknown_fields_are_named_by_path() {
        let registry = builtin::registry();
        let pods = registry.get("", "v1", "pods").unwrap();
        let body = json!({"metadata": {"name": "a", "creationTimestamp": null}, "spec": {"containers": [{"name": "c", "imagee": "x"}]}, "sepc": {}});
        let decoded = decode(pods, body).unwrap();
        assert_eq!(decoded.unknown, ["sepc", "spec.containers[0].imagee"]);
        assert_eq!(decoded.object["kind"], "Pod");
        let error = unknown_fields(&decoded.unknown, FieldValidation::Strict, pods).unwrap_err();
        assert!(error.message.contains("strict decoding error: unknown field \"sepc\""), "{error}");
    }

    #[test]
    fn the_kind_must_be_the_one_of_the_url() {
        let registry = builtin::registry();
        let maps = registry.get("", "v1", "configmaps").unwrap();
        assert_eq!(decode(maps, json!({"apiVersion": "v1", "kind": "Secret"})).unwrap_err().code, 400);
        assert_eq!(decode(maps, json!([1])).unwrap_err().code, 400);
    }
}
