//! The schemas of the built-in kinds: Kubernetes' own, packed by `pack-schemas.py`, which says where they come from.
//!
//! They are unpacked for each document that is asked for, and not kept: clients ask seldom, and keep what they were told.

use serde_json::{Map, Value};

use crate::api::object::{items, text};

static PACKED: &[u8] = include_bytes!("schemas.json.zst");

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// What other schemas are compared by: as long as this is the same, so are they.
pub fn packed() -> &'static [u8] {
    PACKED
}

/// A reference to a schema of the same document.
pub fn reference(name: &str) -> Value {
    serde_json::json!({"$ref": format!("#/components/schemas/{name}")})
}

/// All schemas, by their names.
pub struct Schemas(Map<String, Value>);

impl Schemas {
    pub fn unpacked() -> Self {
        let schemas = zstd::Decoder::new(PACKED).map(serde_json::from_reader::<_, Map<String, Value>>);
        let schemas = schemas.expect("the program's own data has a header").expect("the program's own data is JSON");
        Self(schemas)
    }

    /// The name of the schema of a kind.
    pub fn name(&self, group: &str, version: &str, kind: &str) -> Option<&str> {
        let is_it = |known: &Value| {
            text(known, &["kind"]) == kind && text(known, &["group"]) == group && text(known, &["version"]) == version
        };
        let named = |schema: &Value| items(schema, &["x-kubernetes-group-version-kind"]).iter().any(is_it);
        self.0.iter().find(|(_, schema)| named(schema)).map(|(name, _)| name.as_str())
    }

    /// Adds a schema and everything it refers to.
    pub fn add_to(&self, document: &mut Map<String, Value>, name: &str) {
        let mut wanted = vec![name.to_owned()];
        while let Some(name) = wanted.pop() {
            if let Some(schema) = self.0.get(&name)
                && !document.contains_key(&name)
            {
                references(schema, &mut wanted);
                document.insert(name, schema.clone());
            }
        }
    }

    /// The schema of a custom resource with the fields that every object has.
    pub fn complete(&self, schema: &Value, document: &mut Map<String, Value>) -> Value {
        self.add_to(document, OBJECT_META);
        let mut schema = schema.clone();
        let of_a_service = self.0.get("io.k8s.api.core.v1.Service");
        for field in ["apiVersion", "kind", "metadata"] {
            let known = of_a_service.and_then(|service| service["properties"].get(field));
            schema["properties"][field] = known.cloned().unwrap_or_default();
        }
        schema
    }

    /// The schema of a list of custom resources.
    pub fn list_of(&self, name: &str, document: &mut Map<String, Value>) -> Value {
        self.add_to(document, LIST_META);
        serde_json::json!({
            "type": "object", "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": reference(LIST_META),
                "items": {"type": "array", "items": reference(name)},
            },
        })
    }
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next()) {
                found.push(name.to_owned());
            }
            map.values().for_each(|child| references(child, found));
        }
        Value::Array(list) => list.iter().for_each(|child| references(child, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::Shape;

    #[test]
    fn every_built_in_kind_has_a_schema_and_every_reference_leads_somewhere() {
        let schemas = Schemas::unpacked();
        for resource in crate::api::builtin::registry().iter() {
            let kinds = match resource.shape {
                Shape::Review => vec![&resource.kind],
                _ => vec![&resource.kind, &resource.list_kind],
            };
            for kind in kinds {
                let name = schemas.name(&resource.group, &resource.version, kind);
                let name = name.unwrap_or_else(|| panic!("{} {kind} has no schema", resource.api_version()));
                let mut document = Map::new();
                schemas.add_to(&mut document, name);
                let mut referred = Vec::new();
                document.values().for_each(|schema| references(schema, &mut referred));
                assert!(referred.iter().all(|name| document.contains_key(name)), "{kind} refers to what is not there");
            }
        }
    }
}
