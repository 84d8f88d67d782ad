//! Listeners: TLS for proxies and webhooks, plain HTTP for health, metrics and debugging.

mod grpc;
mod http;
mod listener;
mod peer;
mod readiness;
#[cfg(test)]
mod tests;

pub use grpc::GrpcService;
pub use http::HealthService;
pub use listener::{BindError, Bound, ConnectionInfo, Handler, Protocol, bind};
pub use peer::{peer_identity, tls_for_proxies, tls_for_webhooks};
pub use readiness::Readiness;

use std::convert::Infallible;

use ::http::{Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

/// An error that ends a body early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
/// A response's body.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there as a whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A whole response of text.
pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    text(status, "application/json", value.to_string())
}
