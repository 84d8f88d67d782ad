//! The server's own controllers: owners and dependents, namespaces that end, custom resource definitions.
//!
//! One task reads every change in order. What takes several writes is done here, never in a client's request.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::crd::definition;
use super::database::{Change, ChangeKind, Expect, Key};
use super::namespaces;
use super::object::{finalizers, is_terminating, items, metadata, text, uid};
use super::options::{DeleteOptions, Propagation, WriteOptions};
use super::path::Target;
use super::rbac;
use super::resource::Storage;
use super::server::Server;
use super::system_fields::released;
use super::users::User;
use super::writing::Writing;

/// Runs until the server stops.
pub async fn run(server: Arc<Server>, mut changes: mpsc::UnboundedReceiver<Arc<Change>>) {
    let stopping = server.stopping.clone();
    let mut leaving: HashSet<String> = HashSet::new();
    for namespace in server.all("", "namespaces", None) {
        if namespaces::is_leaving(&namespace.value) {
            leaving.insert(super::object::name(&namespace.value).to_owned());
        }
    }
    // Something in a leaving namespace may be held by a webhook that refuses; it is tried again now and then.
    let mut retry = tokio::time::interval(Duration::from_secs(2));
    loop {
        let change = tokio::select! {
            () = stopping.cancelled() => return,
            change = changes.recv() => match change { Some(change) => change, None => return },
            _ = retry.tick(), if !leaving.is_empty() => {
                empty_all(&server, &mut leaving).await;
                continue;
            }
        };
        let storage = &*change.storage;
        let object = change.object.unpack();
        let object = &object.value;
        if storage == "/namespaces" {
            if change.kind == ChangeKind::Deleted {
                leaving.remove(&change.key.name);
            } else if is_terminating(object) {
                leaving.insert(change.key.name.clone());
                empty_all(&server, &mut leaving).await;
            }
        }
        if storage == "apiextensions.k8s.io/customresourcedefinitions" {
            definition::follow(&server, &change).await;
        }
        if rbac::concerns_aggregation(&change) {
            rbac::aggregate(&server);
        }
        match change.kind {
            ChangeKind::Deleted => {
                namespaces::restore(&server, storage, &change.key);
                owner_gone(&server, object).await;
                // Awaited elsewhere by a foreground deletion?
                for owner in items(object, &["metadata", "ownerReferences"]) {
                    settle_owner(&server, &change.key.namespace, owner).await;
                }
                if let Some(definition) = definition::waiting_for(&server, storage) {
                    definition::clean_up(&server, &definition).await;
                }
                if leaving.contains(&change.key.namespace) {
                    namespaces::empty(&server, &change.key.namespace).await;
                }
            }
            ChangeKind::Added | ChangeKind::Modified => {
                if is_terminating(object) {
                    settle(&server, &change.storage, &change.key).await;
                }
                collect_orphan(&server, &change).await;
            }
        }
    }
}

async fn empty_all(server: &Arc<Server>, leaving: &mut HashSet<String>) {
    leaving.retain(|name| server.find("", "namespaces", "", name).is_some_and(|n| is_terminating(&n.value)));
    for namespace in leaving.iter() {
        namespaces::empty(server, namespace).await;
    }
}

/// Deletes the dependents of an object that is gone.
async fn owner_gone(server: &Arc<Server>, owner: &Value) {
    for (storage, key) in server.database.dependents(uid(owner)) {
        collect(server, &storage, &key).await;
    }
}

/// An object that was written with owners that don't exist.
async fn collect_orphan(server: &Arc<Server>, change: &Change) {
    if change.object.owners.iter().any(|owner| !server.database.has_uid(owner)) {
        collect(server, &change.storage, &change.key).await;
    }
}

/// Deletes an object none of whose owners exists; of an object with some left, drops the references to the others.
async fn collect(server: &Arc<Server>, storage: &Storage, key: &Key) {
    let Some(found) = server.database.get(storage, key) else { return };
    let owners = items(&found.value, &["metadata", "ownerReferences"]);
    if owners.is_empty() || is_terminating(&found.value) {
        return;
    }
    let (kept, gone): (Vec<&Value>, Vec<&Value>) =
        owners.iter().partition(|owner| server.database.has_uid(text(owner, &["uid"])));
    if gone.is_empty() {
        return;
    }
    if kept.is_empty() {
        delete(server, storage, key, uid(&found.value), Propagation::Background).await;
        return;
    }
    let mut next = found.value.clone();
    metadata(&mut next).insert("ownerReferences".into(), json!(kept));
    // Changed meanwhile: the change itself brings us back here.
    let _ = server.database.store(storage, key, Expect::Version(found.version), next);
}

async fn delete(server: &Arc<Server>, storage: &Storage, key: &Key, uid: &str, propagation: Propagation) {
    let registry = server.registry();
    let Some(resource) = registry.by_storage(storage) else { return };
    let target = Target {
        resource: resource.clone(),
        namespace: resource.namespaced.then(|| key.namespace.clone()),
        name: Some(key.name.clone()),
        subresource: None,
        watched: false,
    };
    let user = User::controller("generic-garbage-collector");
    let options = WriteOptions::internal("kube-controller-manager");
    let mut writing = Writing { server, target: &target, user: &user, options, warnings: Vec::new() };
    let options = DeleteOptions { uid: Some(uid.into()), ..DeleteOptions::internal(propagation) };
    if let Err(error) = writing.delete(&key.name, &options).await
        && error.code != 404
        && error.code != 409
    {
        tracing::warn!(%storage, namespace = key.namespace, name = key.name, %error, "can't delete the dependent of a deleted object");
    }
}

/// Goes on with an owner that may be waiting for its dependents.
async fn settle_owner(server: &Arc<Server>, namespace: &str, owner: &Value) {
    let registry = server.registry();
    let Some(resource) = registry.by_kind(text(owner, &["apiVersion"]), text(owner, &["kind"])) else { return };
    let namespace = if resource.namespaced { namespace } else { "" };
    settle(server, &resource.storage, &Key::new(namespace, text(owner, &["name"]))).await;
}

/// Carries on a deletion that waits for its dependents (`foregroundDeletion`) or leaves them behind (`orphan`).
async fn settle(server: &Arc<Server>, storage: &Storage, key: &Key) {
    let Some(found) = server.database.get(storage, key).filter(|f| is_terminating(&f.value)) else { return };
    let has = |finalizer: &str| finalizers(&found.value).any(|f| f == finalizer);
    let owner = uid(&found.value).to_owned();
    if has("orphan") {
        for (dependent_storage, dependent) in server.database.dependents(&owner) {
            disown(server, &dependent_storage, &dependent, &owner);
        }
        drop_finalizer(server, storage, key, "orphan").await;
    } else if has("foregroundDeletion") {
        let mut blocking = false;
        for (dependent_storage, dependent) in server.database.dependents(&owner) {
            let Some(object) = server.database.get(&dependent_storage, &dependent) else { continue };
            if !is_terminating(&object.value) {
                delete(server, &dependent_storage, &dependent, uid(&object.value), Propagation::Foreground).await;
            }
            let still = server.database.get(&dependent_storage, &dependent).is_some();
            let blocks = items(&object.value, &["metadata", "ownerReferences"])
                .iter()
                .any(|o| text(o, &["uid"]) == owner && o["blockOwnerDeletion"] == true);
            blocking |= still && blocks;
        }
        if !blocking {
            drop_finalizer(server, storage, key, "foregroundDeletion").await;
        }
    }
}

fn disown(server: &Server, storage: &Storage, key: &Key, owner: &str) {
    while let Some(found) = server.database.get(storage, key) {
        let mut next = found.value.clone();
        let left: Vec<Value> = items(&next, &["metadata", "ownerReferences"])
            .iter()
            .filter(|o| text(o, &["uid"]) != owner)
            .cloned()
            .collect();
        super::object::put(metadata(&mut next), "ownerReferences", (!left.is_empty()).then(|| json!(left)));
        if server.database.store(storage, key, Expect::Version(found.version), next).is_ok() {
            return;
        }
    }
}

async fn drop_finalizer(server: &Server, storage: &Storage, key: &Key, finalizer: &str) {
    let registry = server.registry();
    let Some(resource) = registry.by_storage(storage) else { return };
    while let Some(found) = server.database.get(storage, key) {
        let mut next = found.value.clone();
        let left: Vec<String> = finalizers(&next).filter(|f| *f != finalizer).map(Into::into).collect();
        super::object::put(metadata(&mut next), "finalizers", (!left.is_empty()).then(|| json!(left)));
        let written = if released(resource, &next) {
            server.database.remove(storage, key, found.version, next)
        } else {
            server.database.store(storage, key, Expect::Version(found.version), next)
        };
        if let Ok((_, durable)) = written {
            if let Err(error) = durable.wait().await {
                tracing::warn!(%storage, name = key.name, error, "the end of an object isn't in the journal");
            }
            return;
        }
    }
}
