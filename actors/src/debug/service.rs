//! The debug API over HTTP.

use std::sync::Arc;

use fsm_store::{EventLog, SledLog};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{RecordsQuery, body};
use crate::ControlPlane;
use crate::catalog::{ObjectName, ProxyStatus};
use crate::serve::{Body, Handler, json, text};

const HELP: &str = "\
GET /records?from=SEQ&follow=true   records as lines of JSON
GET /status                         the log, and how far every proxy is
GET /proxies/<namespace>/<pod>/config   all that a proxy is told
";

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

    async fn config(&self, namespace: &str, pod: &str) -> Response<Body> {
        let proxy = ObjectName::new(namespace, pod);
        match self.control.config_of(&proxy).await {
            Some(config) => json(StatusCode::OK, &config.to_json()),
            None => {
                let message = format!("no pod {proxy} with a sidecar is known: /status lists the proxies\n");
                text(StatusCode::NOT_FOUND, "text/plain", message)
            }
        }
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
        match path.as_slice() {
            [""] => text(StatusCode::OK, "text/plain", HELP),
            ["records"] => self.records(request.uri().query().unwrap_or_default()),
            ["status"] => self.status(),
            ["proxies", namespace, pod, "config"] => self.config(namespace, pod).await,
            _ => text(StatusCode::NOT_FOUND, "text/plain", format!("not found: this port answers\n{HELP}")),
        }
    }
}
