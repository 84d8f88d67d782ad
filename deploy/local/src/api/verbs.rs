//! What each HTTP method does to objects.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::deleting::Deletion;
use super::media::{self, Accepted, Form};
use super::options::{DeleteOptions, WriteOptions};
use super::patching::{PatchKind, patched};
use super::path::Target;
use super::query::Query;
use super::reading::{self, Filter};
use super::resource::{Resource, Shape};
use super::routes::{Answer, Reply, Request, accepted, plain};
use super::server::Server;
use super::status::ApiError;
use super::writing::{Part, Way, Writing};
use super::{extras, rbac, reviews, subresources};

/// Answers a request for objects.
pub async fn answer(server: &Arc<Server>, request: &Request, mut target: Target) -> Result<Reply, ApiError> {
    rbac::enforce(server, request, &target)?;
    if let Some(subresource) = target.subresource.clone().filter(|name| !matches!(name.as_str(), "status" | "scale")) {
        return extras::answer(server, request, &target, &subresource).await;
    }
    if matches!(target.resource.shape, Shape::Review) {
        if target.name.is_some() {
            return Err(ApiError::no_such_resource());
        }
        if request.method != Method::POST {
            return Err(ApiError::method_not_allowed());
        }
        let review = reviews::answer(server, &target, &request.user, request.json()?)?;
        return Ok(plain(Answer::value(201, review)));
    }
    let accepted = accepted(request)?;
    let named = target.name.is_some();
    let mut reply = match request.method {
        Method::GET if is_watch(request, &target) => {
            if accepted.yaml {
                return Err(ApiError::new(406, "NotAcceptable", "a watch is given as application/json only"));
            }
            Answer::Lines(super::watching::start(server.clone(), target, request.query.clone(), accepted.form)?).into()
        }
        Method::GET if named => {
            let scale = target.resource.scale.as_ref().filter(|_| target.subresource.as_deref() == Some("scale"));
            let value = match scale {
                Some(paths) => {
                    let object = super::server::present(&target.resource, &reading::find(server, &target)?);
                    subresources::scale_of(&target.resource, paths, &object)
                }
                None => reading::get(server, &target, &request.query, accepted.form).await?,
            };
            Answer::value(200, value).into()
        }
        Method::GET => reading::list(server, &target, &request.query, accepted.form, accepted.yaml).await?.into(),
        Method::POST if !named => create(server, request, &mut target, accepted).await?,
        Method::PUT if named => replace(server, request, &target, accepted).await?,
        Method::PATCH if named => patch(server, request, &target, accepted).await?,
        Method::DELETE if named && target.subresource.is_none() => delete(server, request, &target, accepted).await?,
        Method::DELETE
            if !named
                && target.resource.verbs().contains(&"deletecollection")
                && target.resource.namespaced == target.namespace.is_some() =>
        {
            delete_collection(server, request, &target).await?
        }
        _ => return Err(ApiError::method_not_allowed()),
    };
    reply.yaml = accepted.yaml;
    Ok(reply)
}

/// Whether a request asks for a stream of changes.
pub fn is_watch(request: &Request, target: &Target) -> bool {
    target.subresource.is_none() && (target.watched || request.query.flag("watch"))
}

pub fn writing<'a>(
    server: &'a Arc<Server>,
    request: &'a Request,
    target: &'a Target,
    options: WriteOptions,
) -> Writing<'a> {
    Writing { server, target, user: &request.user, options, warnings: Vec::new() }
}

/// The end of a write: the answer with its warnings, which a refusal carries too.
pub fn finish(
    writing: Writing<'_>,
    resource: &Resource,
    result: Result<(u16, Value), ApiError>,
    form: Form,
) -> Result<Reply, ApiError> {
    match result {
        Ok((code, value)) => {
            let value = reading::shaped(resource, value, form, &Query::default());
            Ok(Reply { answer: Answer::value(code, value), warnings: writing.warnings, yaml: false })
        }
        Err(mut error) => {
            error.warnings.extend(writing.warnings);
            Err(error)
        }
    }
}

async fn create(
    server: &Arc<Server>,
    request: &Request,
    target: &mut Target,
    accepted: Accepted,
) -> Result<Reply, ApiError> {
    let options = request.options("CreateOptions", false)?;
    let body = request.json()?;
    if target.resource.namespaced && target.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    let mut writing = writing(server, request, target, options);
    let result = writing.create(body, Way::Replace).await.map(|value| (201, value));
    finish(writing, &target.resource, result, accepted.form)
}

/// Kinds that a PUT creates when they aren't there.
fn created_by_put(resource: &Resource) -> bool {
    matches!(
        (resource.group.as_str(), resource.plural.as_str()),
        ("", "services" | "endpoints" | "events")
            | ("coordination.k8s.io", "leases")
            | ("rbac.authorization.k8s.io", _)
    )
}

async fn replace(
    server: &Arc<Server>,
    request: &Request,
    target: &Target,
    accepted: Accepted,
) -> Result<Reply, ApiError> {
    let options = request.options("UpdateOptions", false)?;
    let body = request.json()?;
    let mut writing = writing(server, request, target, options);
    if let (Some("scale"), Some(paths)) = (target.subresource.as_deref(), &target.resource.scale) {
        let result = writing.rescale(paths, Way::Replace, |_| Ok(body.clone())).await.map(|value| (200, value));
        return finish(writing, &target.resource, result, Form::Whole);
    }
    let missing = reading::find(server, target).is_err();
    let result = if missing && target.subresource.is_none() && created_by_put(&target.resource) {
        let mut body = body;
        super::object::metadata(&mut body).remove("resourceVersion");
        writing.create(body, Way::Replace).await.map(|value| (201, value))
    } else {
        writing.update(part(target), Way::Replace, |_| Ok(body.clone())).await.map(|value| (200, value))
    };
    finish(writing, &target.resource, result, accepted.form)
}

fn part(target: &Target) -> Part {
    if target.subresource.as_deref() == Some("status") { Part::Status } else { Part::Main }
}

async fn patch(
    server: &Arc<Server>,
    request: &Request,
    target: &Target,
    accepted: Accepted,
) -> Result<Reply, ApiError> {
    let kind = PatchKind::of(request.content_type(), &target.resource)?;
    let options = request.options("PatchOptions", kind == PatchKind::Apply)?;
    if kind == PatchKind::Apply {
        if target.subresource.as_deref() == Some("scale") {
            return Err(ApiError::not_implemented("a Scale can't be applied here: send a merge patch"));
        }
        let configuration = media::read_yaml(&request.body)
            .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {}", error.message)))?;
        let mut writing = writing(server, request, target, options);
        let result = writing.apply(part(target), configuration).await;
        return finish(writing, &target.resource, result, accepted.form);
    }
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let mut writing = writing(server, request, target, options);
    if let (Some("scale"), Some(paths)) = (target.subresource.as_deref(), &target.resource.scale) {
        let result =
            writing.rescale(paths, Way::Patch, |scale| patched(kind, &body, scale)).await.map(|value| (200, value));
        return finish(writing, &target.resource, result, Form::Whole);
    }
    let way = if kind == PatchKind::Strategic { Way::StrategicPatch } else { Way::Patch };
    let result = writing.update(part(target), way, |object| patched(kind, &body, object)).await.map(|v| (200, v));
    finish(writing, &target.resource, result, accepted.form)
}

fn delete_options(request: &Request) -> Result<DeleteOptions, ApiError> {
    let body = if request.body.is_empty() { Value::Null } else { request.json()? };
    DeleteOptions::of(&request.query, &body)
}

async fn delete(
    server: &Arc<Server>,
    request: &Request,
    target: &Target,
    accepted: Accepted,
) -> Result<Reply, ApiError> {
    let options = delete_options(request)?;
    let mut write_options = WriteOptions::internal("unknown");
    write_options.dry_run = options.dry_run;
    let mut writing = writing(server, request, target, write_options);
    let name = target.name.clone().unwrap_or_default();
    let result = writing.delete(&name, &options).await;
    let resource = &target.resource;
    let form = if matches!(result, Ok(Deletion::Gone(_))) && accepted.form == Form::Table {
        Form::Whole
    } else {
        accepted.form
    };
    let result = result.map(|deletion| (200, deletion.answer(resource)));
    let is_status = matches!(&result, Ok((_, value)) if value["kind"] == "Status");
    finish(writing, resource, result, if is_status { Form::Whole } else { form })
}

async fn delete_collection(server: &Arc<Server>, request: &Request, target: &Target) -> Result<Reply, ApiError> {
    let options = delete_options(request)?;
    let filter = Filter::of(&request.query, &target.resource)?;
    let mut gone = Vec::new();
    for (key, object) in reading::matching(server, target, &filter) {
        let one = Target {
            namespace: target.resource.namespaced.then(|| key.namespace.clone()),
            name: Some(key.name.clone()),
            ..target.clone()
        };
        let mut write_options = WriteOptions::internal("unknown");
        write_options.dry_run = options.dry_run;
        write_options.collection = true;
        let mut writing = writing(server, request, &one, write_options);
        match writing.delete(&key.name, &options).await {
            Ok(Deletion::Gone(value) | Deletion::Waiting(value)) => gone.push(value),
            // Someone else was faster.
            Err(error) if error.code == 404 => gone.push(super::server::present(&target.resource, &object)),
            Err(error) => return Err(error),
        }
    }
    let resource = &target.resource;
    let metadata = json!({"resourceVersion": server.database.version().to_string()});
    let list =
        json!({"kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": gone});
    Ok(plain(Answer::value(200, list)))
}
