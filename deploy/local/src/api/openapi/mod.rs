//! OpenAPI v3, as much of it as kubectl needs: the schemas of all kinds, and which parameters a PATCH takes.

mod builtin;
pub mod second;

use serde_json::{Map, Value, json};

use super::discovery::etag;
use super::resource::{Registry, Resource, Shape};
use builtin::{Schemas, packed, reference};

/// The path of a group and version below `/openapi/v3/`.
fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: the documents with their hashes.
pub fn index(registry: &Registry) -> Value {
    let built_in = etag(packed());
    let mut paths = Map::new();
    for group in &registry.groups {
        for version in registry.versions(group) {
            let path = document_path(group, &version);
            // What a document is made of stands for it.
            let mut parts = built_in.clone().into_bytes();
            for resource in registry.of_version(group, &version) {
                parts.extend(format!("{} {} ", resource.plural, resource.kind).bytes());
                if let Some(custom) = resource.custom() {
                    parts.extend(custom.schema.to_string().bytes());
                }
            }
            let hash = etag(&parts).replace('"', "");
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        }
    }
    json!({"paths": paths})
}

/// One document; `path` is what follows `/openapi/v3/`.
pub fn document(registry: &Registry, path: &str) -> Option<Value> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return None,
    };
    registry.of_version(group, version).next()?;
    let known = Schemas::unpacked();
    let mut document = Document { known, paths: Map::new(), schemas: Map::new() };
    for resource in registry.of_version(group, version) {
        document.add(resource, &format!("/{path}"));
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": document.paths,
        "components": {"schemas": document.schemas},
    }))
}

struct Document {
    known: Schemas,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Document {
    fn add(&mut self, resource: &Resource, path: &str) {
        let name = self.add_schema(resource, &resource.kind);
        let within = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
        let base = format!("{path}{within}/{}", resource.plural);
        let operation = |action: &str| operation(resource, action, &name);
        if matches!(resource.shape, Shape::Review) {
            self.paths.insert(base, json!({"post": operation("post")}));
            return;
        }
        let one = json!({
            "get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete"),
        });
        self.paths.insert(format!("{base}/{{name}}"), one);
        let post = operation("post");
        let list = self.add_schema(resource, &resource.list_kind);
        let list = self::operation(resource, "list", &list);
        if resource.namespaced {
            self.paths.insert(format!("{path}/{}", resource.plural), json!({"get": list}));
        }
        self.paths.insert(base, json!({"get": list, "post": post}));
    }

    /// Adds the schema of a resource or of its list, with all it refers to; gives its name.
    fn add_schema(&mut self, resource: &Resource, kind: &str) -> String {
        let Some(custom) = resource.custom() else {
            let name = self.known.name(&resource.group, &resource.version, kind).unwrap_or_default().to_owned();
            self.known.add_to(&mut self.schemas, &name);
            return name;
        };
        let domain: Vec<&str> = resource.group.split('.').rev().collect();
        let name = |kind: &str| format!("{}.{}.{kind}", domain.join("."), resource.version);
        let mut schema = if *kind == *resource.kind {
            self.known.complete(&custom.schema, &mut self.schemas)
        } else {
            self.known.list_of(&name(&resource.kind), &mut self.schemas)
        };
        schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(resource, kind)]);
        self.schemas.insert(name(kind), schema);
        name(kind)
    }
}

fn group_version_kind(resource: &Resource, kind: &str) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": kind})
}

fn operation(resource: &Resource, action: &str, schema: &str) -> Value {
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters: Vec<Value> = match action {
        "patch" => ["dryRun", "fieldManager", "fieldValidation", "force"].map(query).into(),
        "post" | "put" => ["dryRun", "fieldManager", "fieldValidation"].map(query).into(),
        _ => Vec::new(),
    };
    json!({
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference(schema)}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": group_version_kind(resource, &resource.kind),
    })
}
