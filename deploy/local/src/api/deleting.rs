//! DELETE: at once, after a grace period, or when the last finalizer is gone.

use serde_json::{Value, json};

use super::admission::{self, Operation};
use super::database::{Expect, Key};
use super::object::{finalizers, is_terminating, items, metadata, name, text, timestamp, uid};
use super::options::{DeleteOptions, Propagation};
use super::resource::Resource;
use super::server::present;
use super::status::{ApiError, deleted};
use super::system_fields::{has_generation, released};
use super::writing::Writing;

const ATTEMPTS: usize = 16;

/// What a deletion did.
#[derive(Debug)]
pub enum Deletion {
    /// The object is gone; this was its last state.
    Gone(Value),
    /// The object stays for now, in this state.
    Waiting(Value),
}

impl Deletion {
    /// The answer to the client.
    pub fn answer(self, resource: &Resource) -> Value {
        match self {
            Self::Waiting(object) => object,
            Self::Gone(object) => {
                let whole = matches!(
                    (resource.group.as_str(), resource.plural.as_str()),
                    ("", "pods" | "services" | "serviceaccounts" | "namespaces") | ("apiextensions.k8s.io", _)
                );
                if whole { object } else { deleted(resource, name(&object), uid(&object)) }
            }
        }
    }
}

/// What comes next for an object that is being deleted.
enum Step {
    Remove(Value),
    Keep(Value),
    /// It is on its way already.
    Nothing,
}

impl Writing<'_> {
    /// Deletes one object, reviewed by the validating and mutating webhooks.
    pub async fn delete(&mut self, object_name: &str, options: &DeleteOptions) -> Result<Deletion, ApiError> {
        let resource = self.target.resource.clone();
        let key = Key::new(self.target.namespace.as_deref().unwrap_or_default(), object_name);
        let mut reviewed = false;
        for _ in 0..ATTEMPTS {
            let Some(current) = self.server.database.get(&resource.storage, &key) else {
                return Err(ApiError::not_found(&resource, object_name));
            };
            let value = present(&resource, &current);
            check_preconditions(&resource, &value, options)?;
            if !reviewed {
                let mut none = Value::Null;
                admission::mutate(self, Operation::Delete, "", &mut none, Some(&value)).await?;
                admission::validate(self, Operation::Delete, "", None, Some(&value)).await?;
                reviewed = true;
            }
            refuse_protected(&resource, object_name)?;
            let step = next_step(&resource, current.value.clone(), options);
            let database = &self.server.database;
            let (outcome, durable) = match step {
                Step::Nothing => return Ok(Deletion::Waiting(value)),
                Step::Remove(last) if options.dry_run => return Ok(Deletion::Gone(last)),
                Step::Keep(next) if options.dry_run => return Ok(Deletion::Waiting(next)),
                Step::Remove(last) => match database.remove(&resource.storage, &key, current.version, last) {
                    Ok((object, durable)) => (Deletion::Gone(present(&resource, &object)), durable),
                    Err(_) => continue,
                },
                Step::Keep(next) => {
                    match database.store(&resource.storage, &key, Expect::Version(current.version), next) {
                        Ok((object, durable)) => (Deletion::Waiting(present(&resource, &object)), durable),
                        Err(_) => continue,
                    }
                }
            };
            durable.wait().await.map_err(ApiError::internal)?;
            return Ok(outcome);
        }
        Err(ApiError::modified(&resource, object_name))
    }
}

fn check_preconditions(resource: &Resource, object: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let found = uid(object);
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != found) {
        let why = format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({found}). The object might have been deleted and then recreated"
        );
        return Err(precondition(resource, name(object), &why));
    }
    let found = super::object::resource_version(object);
    if let Some(wanted) = options.version.as_deref().filter(|wanted| *wanted != found) {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({found}). The object might have been modified"
        );
        return Err(precondition(resource, name(object), &why));
    }
    Ok(())
}

/// As a real server words it: with the kind in place of the resource.
fn precondition(resource: &Resource, object_name: &str, why: &str) -> ApiError {
    let kind = Resource { plural: resource.kind.clone(), ..resource.clone() };
    ApiError::conflict(&kind, object_name, why)
}

fn refuse_protected(resource: &Resource, object_name: &str) -> Result<(), ApiError> {
    if resource.is("", "namespaces") && matches!(object_name, "default" | "kube-system" | "kube-public") {
        let message = format!("namespaces {object_name:?} is forbidden: this namespace may not be deleted");
        return Err(ApiError::new(403, "Forbidden", message).with_details(super::status::about(resource, object_name)));
    }
    Ok(())
}

fn next_step(resource: &Resource, mut object: Value, options: &DeleteOptions) -> Step {
    let already = is_terminating(&object);
    let grace = grace_seconds(resource, &object, options);
    let held = object["metadata"]["deletionGracePeriodSeconds"].as_i64();
    match options.propagation {
        Some(Propagation::Foreground) if !already => add_finalizer(&mut object, "foregroundDeletion"),
        Some(Propagation::Orphan) if !already => add_finalizer(&mut object, "orphan"),
        _ => {}
    }
    // A second deletion can only shorten the time that is left.
    let sooner = already && held.is_some_and(|held| grace < held);
    if already && !sooner {
        return if released(resource, &object) { Step::Remove(object) } else { Step::Nothing };
    }
    if resource.group == "apiextensions.k8s.io" {
        super::crd::definition::hold(&mut object);
    }
    let namespace_held = resource.is("", "namespaces") && !items(&object, &["spec", "finalizers"]).is_empty();
    if grace == 0 && finalizers(&object).next().is_none() && !namespace_held {
        return Step::Remove(object);
    }
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
    let meta = metadata(&mut object);
    meta.insert("deletionTimestamp".into(), json!(timestamp(at)));
    meta.insert("deletionGracePeriodSeconds".into(), json!(grace));
    if has_generation(resource) && !already && resource.group != "apiextensions.k8s.io" {
        let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or(0) + 1;
        meta.insert("generation".into(), json!(generation));
    }
    if resource.group == "apiextensions.k8s.io" {
        metadata(&mut object).remove("deletionGracePeriodSeconds");
    }
    if resource.is("", "namespaces") {
        super::object::map(&mut object, "status").insert("phase".into(), json!("Terminating"));
        metadata(&mut object).remove("deletionGracePeriodSeconds");
    }
    Step::Keep(object)
}

/// How long a deleted pod may take to end on its node. Everything else goes at once.
fn grace_seconds(resource: &Resource, pod: &Value, options: &DeleteOptions) -> i64 {
    if !resource.is("", "pods") {
        return 0;
    }
    let ended = matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed");
    if text(pod, &["spec", "nodeName"]).is_empty() || ended {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    options.grace_seconds.unwrap_or(own).max(0)
}

fn add_finalizer(object: &mut Value, finalizer: &str) {
    let meta = metadata(object);
    super::object::default(meta, "finalizers", || json!([]));
    if let Some(list) = meta.get_mut("finalizers").and_then(Value::as_array_mut)
        && !list.iter().any(|f| f == finalizer)
    {
        list.push(json!(finalizer));
    }
}
