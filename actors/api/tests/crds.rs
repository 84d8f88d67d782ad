//! The schemas in `deploy/crds` and the types of this crate know the same fields: what a cluster accepts is understood, and what is
//! understood can be written.

use std::path::Path;

use fsm_api::{HttpRouteGroup, KindInfo, MeshConfig, TcpRoute, TrafficSplit, TrafficTarget, kinds, validate_json};
use serde_json::{Map, Value, json};

fn definition(kind: &KindInfo) -> Value {
    let file = format!("{}.{}.yaml", kind.plural, kind.group);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds").join(&file);
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn custom_kinds() -> impl Iterator<Item = &'static KindInfo> {
    kinds::WATCHED.iter().filter(|kind| kind.custom)
}

fn spec_schema(version: &Value) -> &Value {
    &version["schema"]["openAPIV3Schema"]["properties"]["spec"]
}

/// A value with every field that the schema has, one item in every list.
fn sample(schema: &Value) -> Value {
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed[0].clone();
    }
    match schema["type"].as_str() {
        Some("object") => match &schema["additionalProperties"] {
            Value::Null => {
                let properties = schema["properties"].as_object().into_iter().flatten();
                Value::Object(properties.map(|(name, schema)| (name.clone(), sample(schema))).collect::<Map<_, _>>())
            }
            each => json!({ "x": sample(each) }),
        },
        Some("array") => json!([sample(&schema["items"])]),
        Some("boolean") => json!(false),
        Some("integer" | "number") => schema["minimum"].as_i64().unwrap_or(1).max(1).into(),
        _ => json!("x"),
    }
}

/// Fields of `value` that the schema doesn't have.
fn beyond(value: &Value, schema: &Value, path: &str) -> Vec<String> {
    match value {
        Value::Object(members) if schema["additionalProperties"].is_null() => members
            .iter()
            .flat_map(|(name, value)| {
                let path = format!("{path}.{name}");
                match schema["properties"].get(name) {
                    Some(schema) => beyond(value, schema, &path),
                    None => vec![path],
                }
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(|item| beyond(item, &schema["items"], path)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn definitions_are_what_the_registry_says() {
    for kind in custom_kinds() {
        let definition = definition(kind);
        assert_eq!(definition["metadata"]["name"], format!("{}.{}", kind.plural, kind.group));
        assert_eq!(definition["metadata"]["labels"]["app.kubernetes.io/name"], "flomesh.io");
        let spec = &definition["spec"];
        assert_eq!((&spec["group"], &spec["names"]["kind"]), (&json!(kind.group), &json!(kind.kind)));
        assert_eq!(spec["names"]["plural"], kind.plural);
        assert_eq!(spec["scope"] == "Namespaced", kind.namespaced);
        let versions = spec["versions"].as_array().unwrap();
        let stored: Vec<&Value> = versions.iter().filter(|version| version["storage"] == true).collect();
        assert_eq!(stored.len(), 1);
        assert_eq!((&stored[0]["name"], &stored[0]["served"]), (&json!(kind.version), &json!(true)));
    }
}

#[test]
fn every_field_of_a_schema_is_known_to_its_type() {
    for kind in custom_kinds() {
        for version in definition(kind)["spec"]["versions"].as_array().unwrap() {
            let object = json!({
                "apiVersion": format!("{}/{}", kind.group, version["name"].as_str().unwrap()),
                "kind": kind.kind,
                "metadata": {"name": "x", "namespace": "x"},
                "spec": sample(spec_schema(version)),
            });
            let report = validate_json(&object);
            let unknown = report
                .errors
                .iter()
                .find(|error| error.message.contains("unknown field") || error.message.contains("kubectl explain"));
            assert_eq!(unknown, None, "{object}");
        }
    }
}

#[test]
fn every_field_of_a_type_is_in_its_schema() {
    fn reread<T: serde::Serialize + serde::de::DeserializeOwned>(object: &Value) -> Value {
        let known: T = serde_json::from_value(object.clone()).unwrap();
        serde_json::to_value(known).unwrap()
    }
    for kind in custom_kinds() {
        let definition = definition(kind);
        let stored =
            definition["spec"]["versions"].as_array().unwrap().iter().find(|version| version["storage"] == true);
        let schema = spec_schema(stored.unwrap());
        let object = json!({"metadata": {"name": "x"}, "spec": sample(schema)});
        let known = match kind.kind {
            "TrafficTarget" => reread::<TrafficTarget>(&object),
            "HTTPRouteGroup" => reread::<HttpRouteGroup>(&object),
            "TCPRoute" => reread::<TcpRoute>(&object),
            "TrafficSplit" => reread::<TrafficSplit>(&object),
            "MeshConfig" => reread::<MeshConfig>(&object),
            other => panic!("{other} has no type here"),
        };
        assert_eq!(beyond(&known["spec"], schema, "spec"), Vec::<String>::new(), "{}", kind.kind);
    }
}
