//! Admission webhooks: those that may change what is written, then those that may only refuse it.

mod call;
mod matching;
mod review;

use futures::future::join_all;
use serde_json::Value;

use super::cel::holds;
use super::resource::Resource;
use super::server::convert;
use super::status::ApiError;
use super::writing::Writing;
use matching::{Hook, Match};

/// What a request does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// What a webhook is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub operation: Operation,
    pub subresource: &'a str,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

/// Calls the mutating webhooks, in the order of their configurations' names. `object` is null for a deletion. Gives whether one
/// of them changed it.
pub async fn mutate(
    writing: &mut Writing<'_>,
    operation: Operation,
    subresource: &str,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<bool, ApiError> {
    let hooks = hooks_for(writing, "mutatingwebhookconfigurations");
    if hooks.is_empty() {
        return Ok(false);
    }
    let before = object.clone();
    // With each called webhook that wants to see later changes: the object as it left it.
    let mut left = Vec::new();
    for hook in &hooks {
        if call_mutating(writing, hook, operation, subresource, object, old).await? && hook.reinvoked {
            left.push((hook, object.clone()));
        }
    }
    for (hook, seen) in left {
        if *object != seen {
            call_mutating(writing, hook, operation, subresource, object, old).await?;
        }
    }
    Ok(*object != before)
}

/// Gives whether the webhook was called.
async fn call_mutating(
    writing: &mut Writing<'_>,
    hook: &Hook,
    operation: Operation,
    subresource: &str,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<bool, ApiError> {
    let present = (!object.is_null()).then_some(&*object);
    let question = Question { operation, subresource, object: present, old };
    let Some(found) = hook.matches(writing.server, &writing.target.resource, question) else { return Ok(false) };
    if !conditions_hold(writing, hook, &found, question)? {
        return Ok(false);
    }
    let Some(verdict) = ask(writing, hook, &found, question).await? else { return Ok(true) };
    writing.warnings.extend(verdict.warnings);
    if let Some(denial) = verdict.denial {
        return Err(denial);
    }
    let Some(patch) = verdict.patch.filter(|_| !object.is_null()) else { return Ok(true) };
    let mut patched = seen_as(&found.resource, object);
    // Even a webhook that may be ignored must send a patch that fits.
    json_patch::patch(&mut patched, &patch).map_err(|error| ApiError::internal(error.to_string()))?;
    patched["apiVersion"] = object["apiVersion"].clone();
    patched["kind"] = object["kind"].clone();
    *object = super::decoding::decode(&writing.target.resource, patched)
        .map_err(|error| ApiError::internal(error.message))?
        .object;
    Ok(true)
}

/// Calls the validating webhooks, all at once.
pub async fn validate(
    writing: &mut Writing<'_>,
    operation: Operation,
    subresource: &str,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let hooks = hooks_for(writing, "validatingwebhookconfigurations");
    let question = Question { operation, subresource, object, old };
    let asked = hooks.iter().filter_map(|hook| {
        let found = hook.matches(writing.server, &writing.target.resource, question)?;
        let writing = &*writing;
        Some(async move {
            if conditions_hold(writing, hook, &found, question)? {
                ask(writing, hook, &found, question).await
            } else {
                Ok(None)
            }
        })
    });
    let verdicts = join_all(asked.collect::<Vec<_>>()).await;
    let mut refusal = None;
    for verdict in verdicts {
        match verdict {
            Ok(None) => {}
            Ok(Some(verdict)) => {
                writing.warnings.extend(verdict.warnings);
                refusal = refusal.or(verdict.denial);
            }
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Whether a webhook's own conditions let the request through to it. One that can't be evaluated counts as the webhook's failure,
/// unless another one says no.
fn conditions_hold(
    writing: &Writing<'_>,
    hook: &Hook,
    found: &Match,
    question: Question<'_>,
) -> Result<bool, ApiError> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let review = review::request(writing, found, question, "");
    let shown = |value: Option<&Value>| value.map_or(Value::Null, |value| seen_as(&found.resource, value));
    let (object, old) = (shown(question.object), shown(question.old));
    let variables = [("object", &object), ("oldObject", &old), ("request", &review["request"])];
    let mut failed = None;
    for expression in &hook.conditions {
        match holds(expression, &variables) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => failed = failed.or(Some(format!("expression '{expression}' resulted in error: {error}"))),
        }
    }
    let Some(why) = failed else { return Ok(true) };
    if hook.ignorable {
        return Ok(false);
    }
    let resource = &writing.target.resource;
    let object_name = super::object::name(question.object.or(question.old).unwrap_or(&Value::Null)).to_owned();
    let message = format!("{} {object_name:?} is forbidden: {why}", resource.qualified());
    Err(ApiError::new(403, "Forbidden", message).with_details(super::status::about(resource, &object_name)))
}

/// Asks one webhook. `None` when it couldn't be asked and may be ignored.
async fn ask(
    writing: &Writing<'_>,
    hook: &Hook,
    found: &Match,
    question: Question<'_>,
) -> Result<Option<review::Verdict>, ApiError> {
    let shown = |value: Option<&Value>| value.map(|value| seen_as(&found.resource, value));
    let (object, old) = (shown(question.object), shown(question.old));
    let question = Question { object: object.as_ref(), old: old.as_ref(), ..question };
    let id = uuid::Uuid::new_v4().to_string();
    let request = review::request(writing, found, question, &id);
    let verdict = match call::post(writing.server, hook, &request).await {
        Ok(answer) => review::verdict(hook, &id, &answer),
        Err(error) => Err(format!("failed to call webhook: {error}")),
    };
    match verdict {
        Ok(verdict) => Ok(Some(verdict)),
        Err(error) => {
            let message = format!("failed calling webhook {:?}: {error}", hook.name);
            tracing::warn!(
                webhook = hook.name,
                configuration = hook.configuration,
                ignored = hook.ignorable,
                error,
                "an admission webhook failed"
            );
            if hook.ignorable { Ok(None) } else { Err(ApiError::internal(message)) }
        }
    }
}

/// An object in the version that a webhook's rule names.
fn seen_as(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    convert(resource, &mut object);
    object
}

/// The webhooks of one kind, in the order in which they are called. None for requests about webhook configurations themselves,
/// so that a broken one can always be removed.
fn hooks_for(writing: &Writing<'_>, plural: &str) -> Vec<Hook> {
    if writing.target.resource.group == "admissionregistration.k8s.io" {
        return Vec::new();
    }
    let configurations = writing.server.all("admissionregistration.k8s.io", plural, None);
    configurations.iter().flat_map(|c| Hook::of(&c.value, plural.starts_with("mutating"))).collect()
}
