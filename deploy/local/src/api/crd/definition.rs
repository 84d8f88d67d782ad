//! From a CustomResourceDefinition to served resources, and back when it goes.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::database::{Change, ChangeKind, Expect, Key};
use crate::api::object::{at, finalizers, is_terminating, items, map, metadata, name, now, text, uid};
use crate::api::options::{DeleteOptions, Propagation, WriteOptions};
use crate::api::path::Target;
use crate::api::resource::{CustomVersion, Registry, Resource, ScalePaths, Shape, Storage};
use crate::api::server::Server;
use crate::api::users::User;
use crate::api::writing::Writing;

pub const STORAGE: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Keeps a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Serves the versions of a definition, instead of what was served of it before.
pub fn register(registry: &mut Registry, definition: &Value) {
    let spec = &definition["spec"];
    let (group, names) = (text(spec, &["group"]), &spec["names"]);
    registry.remove(group, text(names, &["plural"]));
    for resource in versions(definition) {
        registry.add(resource);
    }
}

fn versions(definition: &Value) -> impl Iterator<Item = Resource> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let own = |path: &str| text(names, &[path]).to_owned();
    let list =
        |path: &str| items(names, &[path]).iter().filter_map(Value::as_str).map(Into::into).collect::<Vec<String>>();
    let group = text(spec, &["group"]).to_owned();
    let definition_uid = uid(definition).to_owned();
    items(spec, &["versions"]).iter().filter(|v| v["served"] == true || v["storage"] == true).map(move |version| {
        let scale = &version["subresources"]["scale"];
        let path = |key: &str| text(scale, &[key]).trim_start_matches('.').to_owned();
        let custom = CustomVersion {
            schema: at(version, &["schema", "openAPIV3Schema"]).cloned().unwrap_or_else(|| json!({})),
            stored: version["storage"] == true,
            columns: items(version, &["additionalPrinterColumns"]).to_vec(),
            selectable: items(version, &["selectableFields"])
                .iter()
                .map(|field| text(field, &["jsonPath"]).trim_start_matches('.').to_owned())
                .collect(),
            definition: definition_uid.clone(),
        };
        Resource {
            group: group.clone(),
            version: text(version, &["name"]).to_owned(),
            plural: own("plural"),
            singular: own("singular"),
            kind: own("kind"),
            list_kind: own("listKind"),
            short_names: list("shortNames"),
            categories: list("categories"),
            namespaced: text(spec, &["scope"]) == "Namespaced",
            status: version["subresources"].get("status").is_some(),
            scale: scale.is_object().then(|| ScalePaths {
                replicas: path("specReplicasPath"),
                status_replicas: path("statusReplicasPath"),
                selector: Some(path("labelSelectorPath")).filter(|p| !p.is_empty()),
            }),
            extras: &[],
            storage: format!("{group}/{}", own("plural")).into(),
            shape: Shape::Custom(Arc::new(custom)),
        }
    })
}

/// The status of a definition that has just been made.
pub fn first_status(definition: &Value) -> Value {
    json!({"acceptedNames": {"kind": "", "plural": ""}, "conditions": [], "storedVersions": stored_versions(definition)})
}

fn stored_versions(definition: &Value) -> Vec<Value> {
    let versions = items(definition, &["spec", "versions"]).iter();
    versions.filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect()
}

/// Acts on a change of a definition.
pub async fn follow(server: &Arc<Server>, change: &Change) {
    let definition = change.object.unpack();
    let definition = &definition.value;
    if change.kind == ChangeKind::Deleted {
        let (group, plural) = (text(definition, &["spec", "group"]), text(definition, &["spec", "names", "plural"]));
        server.change_registry(|registry| registry.remove(group, plural));
        server.database.forget(&format!("{group}/{plural}").into());
    } else if is_terminating(definition) {
        clean_up(server, definition).await;
    } else {
        server.change_registry(|registry| register(registry, definition));
        accept(server, &change.key);
    }
}

/// Says in the status that the definition is served.
fn accept(server: &Server, key: &Key) {
    let storage = STORAGE.into();
    while let Some(found) = server.database.get(&storage, key) {
        let mut next = found.value.clone();
        let names = next["spec"]["names"].clone();
        let stored = stored_versions(&next);
        let status = map(&mut next, "status");
        status.insert("acceptedNames".into(), names);
        let versions = status.entry("storedVersions").or_insert_with(|| json!([]));
        if let Some(versions) = versions.as_array_mut() {
            for version in stored {
                if !versions.contains(&version) {
                    versions.push(version);
                }
            }
        }
        set_condition(&mut next, "NamesAccepted", "NoConflicts", "no conflicts found");
        set_condition(&mut next, "Established", "InitialNamesAccepted", "the initial names have been accepted");
        if next == found.value || server.database.store(&storage, key, Expect::Version(found.version), next).is_ok() {
            return;
        }
    }
}

fn set_condition(definition: &mut Value, kind: &str, reason: &str, message: &str) {
    let conditions = map(definition, "status").entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    if conditions.iter().any(|c| c["type"] == kind && c["status"] == "True") {
        return;
    }
    conditions.retain(|c| c["type"] != kind);
    conditions.push(
        json!({"type": kind, "status": "True", "lastTransitionTime": now(), "reason": reason, "message": message}),
    );
}

/// Deletes the objects of a definition that is going, then lets it go.
pub async fn clean_up(server: &Arc<Server>, definition: &Value) {
    let storage: Storage =
        format!("{}/{}", text(definition, &["spec", "group"]), text(definition, &["spec", "names", "plural"])).into();
    let registry = server.registry();
    let user = User::controller("crd-finalizer");
    if let Some(resource) = registry.by_storage(&storage) {
        let (_, objects) = server.database.list(&storage, None);
        for (key, _) in objects {
            let target = Target {
                resource: resource.clone(),
                namespace: resource.namespaced.then(|| key.namespace.clone()),
                name: Some(key.name.clone()),
                subresource: None,
                watched: false,
            };
            let options = WriteOptions::internal("kube-apiserver");
            let mut writing = Writing { server, target: &target, user: &user, options, warnings: Vec::new() };
            if let Err(error) = writing.delete(&key.name, &DeleteOptions::internal(Propagation::Background)).await
                && error.code != 404
            {
                tracing::warn!(%storage, name = key.name, %error, "can't delete an object of a deleted definition");
            }
        }
    }
    if !server.database.list(&storage, None).1.is_empty() {
        return;
    }
    let key = Key::new("", name(definition));
    while let Some(found) = server.database.get(&STORAGE.into(), &key).filter(|f| is_terminating(&f.value)) {
        let mut next = found.value.clone();
        let left: Vec<String> = finalizers(&next).filter(|f| *f != CLEANUP).map(Into::into).collect();
        let gone = left.is_empty();
        crate::api::object::put(metadata(&mut next), "finalizers", (!gone).then(|| json!(left)));
        let written = if gone {
            server.database.remove(&STORAGE.into(), &key, found.version, next)
        } else if finalizers(&found.value).any(|f| f == CLEANUP) {
            server.database.store(&STORAGE.into(), &key, Expect::Version(found.version), next)
        } else {
            return;
        };
        if written.is_ok() {
            return;
        }
    }
}

/// The definition that waits for the last object of a storage to go, if one does.
pub fn waiting_for(server: &Server, storage: &str) -> Option<Value> {
    let definitions = server.all("apiextensions.k8s.io", "customresourcedefinitions", None);
    definitions.into_iter().map(|d| d.value.clone()).find(|d| {
        is_terminating(d)
            && *storage == *format!("{}/{}", text(d, &["spec", "group"]), text(d, &["spec", "names", "plural"]))
    })
}

/// Marks a definition that is being deleted: it stays until its objects are gone.
pub fn hold(definition: &mut Value) {
    let meta = metadata(definition);
    crate::api::object::default(meta, "finalizers", || json!([]));
    if let Some(list) = meta.get_mut("finalizers").and_then(Value::as_array_mut)
        && !list.iter().any(|f| f == CLEANUP)
    {
        list.push(json!(CLEANUP));
    }
    set_condition(
        definition,
        "Terminating",
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    );
}
