//! OpenAPI v3, as much of it as kubectl needs: which kinds there are and which parameters a PATCH takes. Schemas of built-in
//! kinds are left open; those of custom resources are their definitions'.

use serde_json::{Map, Value, json};

use super::discovery::etag;
use super::resource::{Registry, Resource, Shape};

/// The path of a group and version below `/openapi/v3/`.
fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: the documents with their hashes.
pub fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for group in &registry.groups {
        for version in registry.versions(group) {
            let path = document_path(group, &version);
            let document = document(registry, &path).map(|d| d.to_string()).unwrap_or_default();
            let hash = etag(document.as_bytes()).replace('"', "");
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
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for resource in registry.of_version(group, version).filter(|r| !matches!(r.shape, Shape::Review)) {
        let name = schema_name(resource);
        schemas.insert(name.clone(), schema(resource));
        let base =
            format!("/{path}{}/{}", if resource.namespaced { "/namespaces/{namespace}" } else { "" }, resource.plural);
        let operation = |action: &str| operation(resource, action, &name);
        paths.insert(base.clone(), json!({"get": operation("list"), "post": operation("post")}));
        paths.insert(
            format!("{base}/{{name}}"),
            json!({"get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete")}),
        );
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.2"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn group_version_kind(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}

fn schema_name(resource: &Resource) -> String {
    if resource.custom().is_some() {
        let domain: Vec<&str> = resource.group.split('.').rev().collect();
        return format!("{}.{}.{}", domain.join("."), resource.version, resource.kind);
    }
    let group = resource.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    format!("io.k8s.api.{group}.{}.{}", resource.version, resource.kind)
}

fn schema(resource: &Resource) -> Value {
    let mut schema = match resource.custom() {
        Some(custom) => custom.schema.clone(),
        None => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
    };
    schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(resource)]);
    schema
}

fn operation(resource: &Resource, action: &str, schema: &str) -> Value {
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let parameters: Vec<Value> = match action {
        "patch" => ["dryRun", "fieldManager", "fieldValidation", "force"].map(query).into(),
        "post" | "put" => ["dryRun", "fieldManager", "fieldValidation"].map(query).into(),
        _ => Vec::new(),
    };
    let reference = json!({"$ref": format!("#/components/schemas/{schema}")});
    json!({
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": group_version_kind(resource),
    })
}
