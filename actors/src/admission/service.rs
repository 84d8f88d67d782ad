//! The webhooks over HTTP.

use std::future::Future;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::{AdmissionRequest, AdmissionResponse, InjectionWebhook, ValidationWebhook};
use crate::serve::{Body, Handler, json, text};

/// Larger than the API server's own limit of 3 MiB for an object, twice over.
const MAX_BODY_BYTES: usize = 8 << 20;

/// One webhook on its port.
#[derive(Clone)]
pub struct WebhookService<W> {
    path: &'static str,
    webhook: W,
}

/// Answers questions of the API server.
pub trait Webhook: Clone + Send + Sync + 'static {
    /// The answer to one question.
    fn review(&self, request: &AdmissionRequest) -> impl Future<Output = AdmissionResponse> + Send;
}

impl Webhook for InjectionWebhook {
    async fn review(&self, request: &AdmissionRequest) -> AdmissionResponse {
        self.answer(request).await
    }
}

impl Webhook for ValidationWebhook {
    async fn review(&self, request: &AdmissionRequest) -> AdmissionResponse {
        self.answer(request)
    }
}

impl<W: Webhook> WebhookService<W> {
    /// Answers at `path` only.
    pub fn new(path: &'static str, webhook: W) -> Self {
        Self { path, webhook }
    }

    /// The answer to a body that was posted to `path`.
    pub(super) async fn post(&self, body: &[u8]) -> Response<Body> {
        match AdmissionRequest::parse(body) {
            Ok(request) => {
                let response = self.webhook.review(&request).await;
                json(StatusCode::OK, &response.into_review(&request.uid))
            }
            Err(error) => text(StatusCode::BAD_REQUEST, "text/plain", format!("{error}\n")),
        }
    }
}

impl<W: Webhook> Handler<Body> for WebhookService<W> {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != self.path {
            return text(StatusCode::NOT_FOUND, "text/plain", format!("not found: this port answers {}\n", self.path));
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "post an AdmissionReview\n");
        }
        match Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await {
            Ok(body) => self.post(&body.to_bytes()).await,
            Err(error) => text(StatusCode::BAD_REQUEST, "text/plain", format!("the body can't be read: {error}\n")),
        }
    }
}
