//! Discovery: which groups, versions and resources there are, in the legacy and the aggregated form.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::resource::{Registry, Resource, Shape};

/// `/api`.
pub fn core_versions(address: &str) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]})
}

/// `/apis`.
pub fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> =
        registry.groups.iter().filter(|g| !g.is_empty()).filter_map(|g| group_entry(registry, g)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_entry(registry: &Registry, group: &str) -> Option<Value> {
    let entry = |version: &String| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = served_versions(registry, group).iter().map(entry).collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": group, "versions": versions, "preferredVersion": preferred}))
}

fn served_versions(registry: &Registry, group: &str) -> Vec<String> {
    registry.versions(group)
}

/// `/apis/GROUP`.
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let mut entry = group_entry(registry, name).filter(|_| !name.is_empty())?;
    entry["kind"] = json!("APIGroup");
    entry["apiVersion"] = json!("v1");
    Some(entry)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub fn version(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut entries = Vec::new();
    for resource in registry.of_version(group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        if !matches!(resource.shape, Shape::Review) {
            let hash = Sha256::digest(format!("{}/{}/{}", resource.group, resource.version, resource.kind));
            entry["storageVersionHash"] = json!(base64_of(&hash[..8]));
        }
        entries.push(entry);
        for sub in subresources(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": sub.kind, "verbs": sub.verbs,
            });
            if !sub.version.is_empty() {
                entry["group"] = json!(sub.group);
                entry["version"] = json!(sub.version);
            }
            entries.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": entries});
    // The core group's list has none.
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    list["resources"].as_array().is_some_and(|entries| !entries.is_empty()).then_some(list)
}

/// `/api` (`core`) or `/apis` in the aggregated form, version 2.
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let mut list = Vec::new();
    for group in registry.groups.iter().filter(|g| g.is_empty() == core) {
        let versions: Vec<Value> = served_versions(registry, group)
            .iter()
            .map(|version| {
                let resources: Vec<Value> =
                    registry.of_version(group, version).map(|resource| aggregated_resource(resource)).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if core { json!({}) } else { json!({"name": group}) };
        list.push(json!({"metadata": metadata, "versions": versions}));
    }
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": list})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = if resource.custom().is_some() { (resource.group.as_str(), resource.version.as_str()) } else { ("", "") };
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": kind(own.0, own.1, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subs: Vec<Value> = subresources(resource)
        .map(|sub| {
            let (group, version) = if sub.version.is_empty() { own } else { (sub.group, sub.version) };
            json!({"subresource": sub.name, "responseKind": kind(group, version, sub.kind), "verbs": sub.verbs})
        })
        .collect();
    if !subs.is_empty() {
        entry["subresources"] = json!(subs);
    }
    entry
}

struct Sub<'a> {
    name: &'a str,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    verbs: &'static [&'static str],
}

fn subresources(resource: &Resource) -> impl Iterator<Item = Sub<'_>> {
    const READ_WRITE: &[&str] = &["get", "patch", "update"];
    let mut subs: BTreeMap<&str, Sub<'_>> = BTreeMap::new();
    if resource.status {
        let sub = Sub { name: "status", group: "", version: "", kind: &resource.kind, verbs: READ_WRITE };
        subs.insert("status", sub);
    }
    if resource.scale.is_some() {
        let sub = Sub { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: READ_WRITE };
        subs.insert("scale", sub);
    }
    for extra in resource.extras {
        let sub =
            Sub { name: extra.name, group: extra.group, version: extra.version, kind: extra.kind, verbs: extra.verbs };
        subs.insert(extra.name, sub);
    }
    subs.into_values()
}

/// The ETag of a document.
pub fn etag(document: &[u8]) -> String {
    let hash: String = Sha256::digest(document).iter().map(|byte| format!("{byte:02X}")).collect();
    format!("\"{hash}\"")
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// `/version`. The Kubernetes version whose behaviour this server follows.
pub fn server_version() -> Value {
    let mut version = Map::new();
    for (key, value) in [
        ("major", "1"),
        ("minor", "36"),
        ("emulationMajor", "1"),
        ("emulationMinor", "36"),
        ("minCompatibilityMajor", "1"),
        ("minCompatibilityMinor", "35"),
        ("gitVersion", "v1.36.2"),
        ("gitCommit", "fsm-local"),
        ("gitTreeState", "clean"),
        ("buildDate", "1970-01-01T00:00:00Z"),
        ("goVersion", "none"),
        ("compiler", "rustc"),
        ("platform", "linux/amd64"),
    ] {
        version.insert(key.into(), json!(value));
    }
    Value::Object(version)
}
