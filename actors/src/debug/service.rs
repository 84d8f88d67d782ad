//! The debug API over HTTP.

use std::sync::Arc;

use fsm_store::{EventLog, Seq, SledLog};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{RecordsQuery, body};
use crate::ControlPlane;
use crate::Core;
use crate::catalog::{ObjectName, ProxyStatus};
use crate::core::{SNAPSHOT, Skips, rebuild};
use crate::serve::{Body, Handler, json, text};

const HELP: &str = "\
GET /                               this, or a page to look at all of it for a browser
GET /records?from=SEQ&follow=true   records as lines of JSON
GET /status                         the log, and how far every proxy is
GET /snapshot?at=SEQ                the newest snapshot that is not after a record, as the log keeps it
GET /proxies?at=SEQ                 the proxies that there were after a record
GET /proxies/<namespace>/<pod>/config?at=SEQ   all that a proxy was told after a record; without it, all that it is told now
";

/// Needs nothing but this port.
const PAGE: &str = include_str!("page.html");

/// Answers from the log and from the running control plane.
#[derive(Clone)]
pub struct DebugService {
    log: Arc<SledLog>,
    control: Arc<ControlPlane>,
}

impl DebugService {
    /// Shows this log and this control plane, which follows it.
    pub fn new(log: Arc<SledLog>, control: Arc<ControlPlane>) -> Self {
        Self { log, control }
    }

    fn records(&self, query: &str) -> Response<Body> {
        match RecordsQuery::parse(query) {
            Ok(query) => {
                let mut response = Response::new(body(&*self.log, query));
                let lines = http::HeaderValue::from_static("application/x-ndjson");
                response.headers_mut().insert(http::header::CONTENT_TYPE, lines);
                response
            }
            Err(error) => text(StatusCode::BAD_REQUEST, "text/plain", format!("{error}\n")),
        }
    }

    fn status(&self) -> Response<Body> {
        let catalog = self.control.catalog();
        let proxies: Vec<Value> = catalog.proxies().iter().map(|(name, status)| proxy(name, status)).collect();
        let (first, last) = (self.log.first(), self.log.last());
        let status = json!({
            "seq": last,
            "version": catalog.seq(),
            "records": (last.0 + 1).saturating_sub(first.0),
            "bytes": self.log.stored_bytes().ok(),
            "proxies": proxies,
        });
        json(StatusCode::OK, &status)
    }

    /// The page for a browser, the list of paths for everybody else.
    fn root(&self, request: &Request<Incoming>) -> Response<Body> {
        let accept = request.headers().get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok());
        match accept.is_some_and(|accept| accept.contains("text/html")) {
            true => text(StatusCode::OK, "text/html; charset=utf-8", PAGE),
            false => text(StatusCode::OK, "text/plain", HELP),
        }
    }

    /// The newest snapshot that is not after a record: what a replay elsewhere begins with.
    async fn snapshot(&self, query: &str) -> Response<Body> {
        let at = match at(query) {
            Ok(at) => at.unwrap_or(self.log.last()),
            Err(error) => return text(StatusCode::BAD_REQUEST, "text/plain", format!("{error}\n")),
        };
        match self.log.latest_snapshot(SNAPSHOT, at).await {
            Ok(Some(snapshot)) => text(StatusCode::OK, "application/x-ndjson", snapshot.bytes),
            Ok(None) => text(StatusCode::NOT_FOUND, "text/plain", format!("there is no snapshot up to seq {at}\n")),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n")),
        }
    }

    async fn proxies(&self, query: &str) -> Response<Body> {
        match self.past(query).await {
            Ok(core) => {
                let proxies: Vec<&ObjectName> = core.proxies().collect();
                json(StatusCode::OK, &json!({ "seq": core.seq(), "proxies": proxies }))
            }
            Err(refused) => *refused,
        }
    }

    /// The state after the record that a query names, or after the last one.
    async fn past(&self, query: &str) -> Result<Core, Box<Response<Body>>> {
        let refused = |status, error: String| Box::new(text(status, "text/plain", format!("{error}\n")));
        let at = at(query).map_err(|error| refused(StatusCode::BAD_REQUEST, error))?;
        let skips = Skips::new();
        let core = rebuild(&*self.log, at.unwrap_or(self.log.last()), skips).await;
        core.map_err(|error| refused(StatusCode::NOT_FOUND, error.to_string()))
    }

    async fn config(&self, namespace: &str, pod: &str, query: &str) -> Response<Body> {
        let proxy = ObjectName::new(namespace, pod);
        let config = match query {
            "" => self.control.config_of(&proxy).await,
            query => match self.past(query).await {
                Ok(core) => core.config_of(&proxy),
                Err(refused) => return *refused,
            },
        };
        match config {
            Some(config) => json(StatusCode::OK, &config.to_json()),
            None => {
                let message = format!("no pod {proxy} with a sidecar is known: /proxies lists the proxies\n");
                text(StatusCode::NOT_FOUND, "text/plain", message)
            }
        }
    }
}

/// Reads `at=SEQ`, which may be left out.
pub(super) fn at(query: &str) -> Result<Option<Seq>, String> {
    match query.split_once('=') {
        None if query.is_empty() => Ok(None),
        Some(("at", seq)) => match seq.parse() {
            Ok(seq) => Ok(Some(Seq(seq))),
            Err(_) => Err(format!("at={seq}: write a seq, a whole number")),
        },
        _ => Err(format!("{query} is not understood: write at=SEQ")),
    }
}

fn proxy(name: &ObjectName, status: &ProxyStatus) -> Value {
    json!({
        "proxy": name,
        "identity": status.identity,
        "connected": status.is_connected(),
        "version": status.version,
        "acked_seq": status.acked.map(|(seq, _)| seq),
        "digest": status.acked.map(|(_, digest)| digest.to_string()),
        "refused": status.refused.as_ref().map(|(seq, error)| json!({ "seq": seq, "error": error })),
    })
}

impl Handler<Body> for DebugService {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is answered here\n");
        }
        let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        let query = request.uri().query().unwrap_or_default();
        match path.as_slice() {
            [""] => self.root(&request),
            ["records"] => self.records(query),
            ["status"] => self.status(),
            ["snapshot"] => self.snapshot(query).await,
            ["proxies"] => self.proxies(query).await,
            ["proxies", namespace, pod, "config"] => self.config(namespace, pod, query).await,
            _ => text(StatusCode::NOT_FOUND, "text/plain", format!("not found: this port answers\n{HELP}")),
        }
    }
}
