//! The plain port: health, metrics, version.

use std::sync::Arc;

use ::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::{Body, Handler, Readiness, json, text};
use crate::metrics::Metrics;

/// Answers `/health/ready`, `/health/alive`, `/metrics` and `/version`.
#[derive(Clone)]
pub struct HealthService {
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl HealthService {
    /// Ready as `readiness` says.
    pub fn new(readiness: Readiness, metrics: Arc<Metrics>) -> Self {
        Self { readiness, metrics }
    }

    /// The answer to one path.
    pub(super) fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is answered here\n");
        }
        match path {
            "/health/alive" => text(StatusCode::OK, "text/plain", "alive\n"),
            "/health/ready" => match self.readiness.waiting_for().as_slice() {
                [] => text(StatusCode::OK, "text/plain", "ready\n"),
                waiting => {
                    let text_of = format!("not ready: waiting for {}\n", waiting.join(", "));
                    text(StatusCode::SERVICE_UNAVAILABLE, "text/plain", text_of)
                }
            },
            "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4", self.metrics.render()),
            "/version" => json(StatusCode::OK, &json!({ "version": env!("CARGO_PKG_VERSION") })),
            _ => text(
                StatusCode::NOT_FOUND,
                "text/plain",
                "not found: try /health/ready, /health/alive, /metrics or /version\n",
            ),
        }
    }
}

impl Handler<Body> for HealthService {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        self.answer(request.method(), request.uri().path())
    }
}
