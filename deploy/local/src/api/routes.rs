//! From a request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::deleting::Deletion;
use super::media::{self, Accepted, Form};
use super::options::{DeleteOptions, WriteOptions};
use super::patching::{PatchKind, patched};
use super::path::{self, Route, Target};
use super::query::Query;
use super::reading::{self, Filter};
use super::resource::{Resource, Shape};
use super::server::{LogOptions, Server};
use super::status::ApiError;
use super::users::User;
use super::writing::{Part, Way, Writing};
use super::{discovery, openapi, reviews, subresources};

/// A request whose body has been read.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub path: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub user: User,
    /// The address this server is reached at, for discovery.
    pub address: String,
}

/// What is answered.
pub enum Answer {
    /// A document with a status code.
    Value {
        code: u16,
        value: Value,
        content_type: Option<&'static str>,
        etag: bool,
    },
    Text(&'static str, String),
    /// A watch: one line for each event.
    Lines(mpsc::Receiver<Bytes>),
    /// A container's log.
    Log(BoxStream<'static, Bytes>),
}

/// An answer with the warnings that go with it.
pub struct Reply {
    pub answer: Answer,
    pub warnings: Vec<String>,
    pub yaml: bool,
}

impl Request {
    fn header(&self, name: http::header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn content_type(&self) -> Option<&str> {
        self.header(http::header::CONTENT_TYPE)
    }

    fn json(&self) -> Result<Value, ApiError> {
        media::read_body(self.content_type(), &self.body)
    }

    fn options(&self, kind: &'static str, apply: bool) -> Result<WriteOptions, ApiError> {
        let agent = self.header(http::header::USER_AGENT).unwrap_or_default();
        WriteOptions::of(&self.query, kind, agent, apply)
    }
}

impl Answer {
    fn value(code: u16, value: Value) -> Self {
        Self::Value { code, value, content_type: None, etag: false }
    }
}

/// Answers a request.
pub async fn answer(server: &Arc<Server>, request: Request) -> Result<Reply, ApiError> {
    if matches!(request.path.as_str(), "/healthz" | "/livez" | "/readyz" | "/version" | "/version/")
        || request.path.starts_with("/livez/")
        || request.path.starts_with("/readyz/")
        || request.path.starts_with("/healthz/")
    {
        return Ok(plain(other(server, &request, request.path.trim_end_matches('/'))?));
    }
    if request.user.is_anonymous() {
        return Err(ApiError::unauthorized());
    }
    let registry = server.registry();
    match path::parse(&request.path, &registry)? {
        Route::Resource(target) => resource(server, &request, target).await,
        Route::Other(path) => Ok(plain(other(server, &request, &path)?)),
        route => {
            read_only(&request)?;
            let accepted = accepted(&request)?;
            let aggregated = accepted.form == Form::Discovery;
            let value = match route {
                Route::CoreVersions if aggregated => discovery::aggregated(&registry, true),
                Route::CoreVersions => discovery::core_versions(&request.address),
                Route::Groups if aggregated => discovery::aggregated(&registry, false),
                Route::Groups => discovery::groups(&registry),
                Route::Group(group) => discovery::group(&registry, &group).ok_or_else(ApiError::no_such_path)?,
                Route::Version(group, version) => discovery::version(&registry, &group, &version).ok_or_else(|| {
                    if registry.has_group(&group) { ApiError::no_such_resource() } else { ApiError::no_such_path() }
                })?,
                Route::Resource(_) | Route::Other(_) => return Err(ApiError::no_such_path()),
            };
            let content_type =
                aggregated.then_some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
            Ok(plain(Answer::Value { code: 200, value, content_type, etag: aggregated }))
        }
    }
}

fn plain(answer: Answer) -> Reply {
    Reply { answer, warnings: Vec::new(), yaml: false }
}

fn accepted(request: &Request) -> Result<Accepted, ApiError> {
    media::accepted(request.header(http::header::ACCEPT))
}

fn read_only(request: &Request) -> Result<(), ApiError> {
    if request.method == Method::GET { Ok(()) } else { Err(ApiError::method_not_allowed()) }
}

/// Paths that name no resource.
fn other(server: &Server, request: &Request, path: &str) -> Result<Answer, ApiError> {
    read_only(request)?;
    let text = |text: &str| Answer::Text("text/plain; charset=utf-8", text.into());
    Ok(match path {
        "/version" => Answer::value(200, discovery::server_version()),
        "/healthz" | "/livez" | "/readyz" if request.query.flag("verbose") => {
            let name = path.trim_start_matches('/');
            text(&format!("[+]ping ok\n[+]journal ok\n{name} check passed\n"))
        }
        "/healthz" | "/livez" | "/readyz" | "/healthz/ping" | "/livez/ping" | "/readyz/ping" => text("ok"),
        "/openapi/v3" => {
            Answer::Value { code: 200, value: openapi::index(&server.registry()), content_type: None, etag: true }
        }
        "/openid/v1/jwks" => Answer::value(200, server.tokens.key_set()),
        "/.well-known/openid-configuration" => Answer::value(
            200,
            json!({"issuer": super::tokens::ISSUER, "jwks_uri": format!("https://{}/openid/v1/jwks", request.address),
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"]}),
        ),
        "" | "/" => {
            let registry = server.registry();
            let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
            for group in registry.groups.iter().filter(|g| !g.is_empty()) {
                paths.push(format!("/apis/{group}"));
                paths.extend(registry.versions(group).iter().map(|v| format!("/apis/{group}/{v}")));
            }
            paths.extend(["/healthz", "/livez", "/openapi/v3", "/readyz", "/version"].map(Into::into));
            Answer::value(200, json!({"paths": paths}))
        }
        _ => match path.strip_prefix("/openapi/v3/") {
            Some(rest) => {
                let document = openapi::document(&server.registry(), rest).ok_or_else(ApiError::no_such_path)?;
                Answer::Value { code: 200, value: document, content_type: None, etag: true }
            }
            None => return Err(ApiError::no_such_path()),
        },
    })
}

/// Requests for objects.
async fn resource(server: &Arc<Server>, request: &Request, mut target: Target) -> Result<Reply, ApiError> {
    if let Some(subresource) = target.subresource.clone() {
        if !matches!(subresource.as_str(), "status" | "scale") {
            return extra(server, request, &target, &subresource).await;
        }
    }
    if matches!(target.resource.shape, Shape::Review) {
        if target.name.is_some() {
            return Err(ApiError::no_such_resource());
        }
        if request.method != Method::POST {
            return Err(ApiError::method_not_allowed());
        }
        let review = reviews::answer(server, &target.resource, &request.user, request.json()?)?;
        return Ok(plain(Answer::value(201, review)));
    }
    let accepted = accepted(request)?;
    let named = target.name.is_some();
    let mut reply = match request.method {
        Method::GET if request.query.flag("watch") && target.subresource.is_none() => {
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
        Method::GET => Answer::value(200, reading::list(server, &target, &request.query, accepted.form).await?).into(),
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

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        plain(answer)
    }
}

fn writing<'a>(
    server: &'a Arc<Server>,
    request: &'a Request,
    target: &'a Target,
    options: WriteOptions,
) -> Writing<'a> {
    Writing { server, target, user: &request.user, options, warnings: Vec::new() }
}

/// The end of a write: the answer with its warnings, which a refusal carries too.
fn finish(
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
    let result =
        writing.update(part(target), Way::Patch, |object| patched(kind, &body, object)).await.map(|v| (200, v));
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

/// Subresources with a kind of their own.
async fn extra(server: &Arc<Server>, request: &Request, target: &Target, subresource: &str) -> Result<Reply, ApiError> {
    let method = &request.method;
    match subresource {
        "log" if *method == Method::GET => log(server, request, target).await,
        "exec" | "attach" | "portforward" => {
            reading::find(server, target)?;
            Err(ApiError::not_implemented(format!(
                "{subresource} is not offered by this one-machine cluster: use `kubectl logs`, or enter the pod's namespaces with nsenter"
            )))
        }
        "binding" | "eviction" | "token" if *method == Method::POST => {
            let body = request.json()?;
            let options = request.options("CreateOptions", false)?;
            let mut writing = writing(server, request, target, options);
            let result = match subresource {
                "binding" => writing.bind(&body).await,
                "eviction" => writing.evict(&body).await,
                _ => writing.token(body),
            };
            finish(writing, &target.resource, result.map(|value| (201, value)), Form::Whole)
        }
        "finalize" if *method == Method::PUT => {
            let body = request.json()?;
            let options = request.options("UpdateOptions", false)?;
            let mut writing = writing(server, request, target, options);
            let result = writing
                .update(Part::Sub("finalize"), Way::Replace, |old| {
                    let mut next = old.clone();
                    let finalizers = body["spec"].get("finalizers").cloned();
                    super::object::put(super::object::map(&mut next, "spec"), "finalizers", finalizers);
                    Ok(next)
                })
                .await;
            finish(writing, &target.resource, result.map(|value| (200, value)), Form::Whole)
        }
        "ephemeralcontainers" if *method == Method::GET => {
            let value = reading::get(server, target, &request.query, Form::Whole).await?;
            Ok(plain(Answer::value(200, value)))
        }
        "ephemeralcontainers" => Err(ApiError::not_implemented(
            "ephemeral containers are not run by this one-machine cluster: enter the pod's namespaces with nsenter",
        )),
        _ => Err(ApiError::method_not_allowed()),
    }
}

async fn log(server: &Arc<Server>, request: &Request, target: &Target) -> Result<Reply, ApiError> {
    let pod = reading::find(server, target)?;
    let query = &request.query;
    let count = |name: &str| query.number(name).map(|n| n.and_then(|n| usize::try_from(n).ok()));
    let options = LogOptions {
        container: query.get("container").map(Into::into),
        follow: query.flag("follow"),
        tail_lines: count("tailLines")?,
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since_seconds: query.number("sinceSeconds")?,
        limit_bytes: count("limitBytes")?,
    };
    let node = server.node.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let node = node.ok_or_else(|| {
        ApiError::new(
            503,
            "ServiceUnavailable",
            "no node agent is running in this cluster: logs are kept by the node agent",
        )
    })?;
    let (namespace, name) = (super::object::namespace(&pod.value), super::object::name(&pod.value));
    Ok(plain(Answer::Log(node.logs(namespace, name, options).await?)))
}
