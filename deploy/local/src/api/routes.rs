//! From a request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use http::{HeaderMap, Method};
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::media::{self, Accepted, Form};
use super::options::WriteOptions;
use super::path::{self, Route};
use super::query::Query;
use super::server::Server;
use super::status::ApiError;
use super::users::User;
use super::{discovery, openapi, rbac, verbs};

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
    /// The connection itself, if the client asks for another protocol on it.
    pub upgrade: Option<OnUpgrade>,
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
    /// A document that is JSON already.
    Json(Bytes),
    Text(&'static str, String),
    /// Bytes of a media type.
    Bytes(&'static str, Vec<u8>),
    /// A watch: one line for each event.
    Lines(mpsc::Receiver<Bytes>),
    /// A container's log.
    Log(BoxStream<'static, Bytes>),
    /// The connection becomes a WebSocket with this protocol within.
    Upgrade {
        protocol: &'static str,
        accept: String,
    },
}

/// An answer with the warnings that go with it.
pub struct Reply {
    pub answer: Answer,
    pub warnings: Vec<String>,
    pub yaml: bool,
}

impl Request {
    pub fn header(&self, name: http::header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn content_type(&self) -> Option<&str> {
        self.header(http::header::CONTENT_TYPE)
    }

    pub fn json(&self) -> Result<Value, ApiError> {
        media::read_body(self.content_type(), &self.body)
    }

    pub fn options(&self, kind: &'static str, apply: bool) -> Result<WriteOptions, ApiError> {
        let agent = self.header(http::header::USER_AGENT).unwrap_or_default();
        WriteOptions::of(&self.query, kind, agent, apply)
    }
}

impl Answer {
    pub fn value(code: u16, value: Value) -> Self {
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
    if request.user.is_anonymous() && !server.rbac {
        return Err(ApiError::unauthorized());
    }
    let registry = server.registry();
    let route = path::parse(&request.path, &registry)?;
    if !matches!(route, Route::Resource(_)) {
        rbac::enforce_path(server, &request)?;
    }
    match route {
        Route::Resource(target) => verbs::answer(server, &request, target).await,
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

pub fn plain(answer: Answer) -> Reply {
    Reply { answer, warnings: Vec::new(), yaml: false }
}

pub fn accepted(request: &Request) -> Result<Accepted, ApiError> {
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
        "/openapi/v2" => match openapi::second::document(request.header(http::header::ACCEPT)) {
            openapi::second::Document::Json(value) => Answer::value(200, value),
            openapi::second::Document::Protobuf(media, bytes) => Answer::Bytes(media, bytes),
        },
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
            paths.extend(["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(Into::into));
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

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        plain(answer)
    }
}
