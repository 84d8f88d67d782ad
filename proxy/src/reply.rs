//! Replies that the proxy makes itself.
//!
//! Each has a line of text, and the header `fsm-denied` with a stable word, so that a client can tell them from the
//! application's. gRPC clients get the gRPC status that means the same, in a response without body
//! ("Trailers-Only"), as they ignore other text.

use std::time::Duration;

use fsm_proxy_config::Refusal;
use fsm_proxy_config::traffic::CircuitBreaker;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::headers::FSM_DENIED;
use crate::stream::Body;
use crate::upstream::{PENDING_OVERFLOW, UpstreamError};

/// The circuit breaker of the service is open.
const CIRCUIT_OPEN: &str = "circuit_open";

/// A reply of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    /// One of few words, for metrics and for the header `fsm-denied`.
    pub reason: &'static str,
    pub text: String,
    /// What is sent instead of the text.
    content: Option<String>,
    /// When to come again, in seconds; none: nobody knows.
    retry_after: Option<u64>,
}

impl Reply {
    pub fn new(status: StatusCode, reason: &'static str, text: impl Into<String>) -> Self {
        // Not known, but soon.
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { status, reason, text: text.into(), content: None, retry_after }
    }

    /// The policy, or the lack of a destination.
    pub fn refused(refusal: &Refusal) -> Self {
        let title = match refusal.status() {
            StatusCode::FORBIDDEN => "Access denied",
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => "Bad request",
            _ => "Unavailable",
        };
        Self::new(refusal.status(), refusal.kind.as_str(), format!("{title}: {refusal}"))
    }

    /// An endpoint that did not answer.
    pub fn failed(error: &UpstreamError) -> Self {
        if error.is_of_client() {
            let text = "Bad request: the body of the request is malformed or broke off";
            return Self::new(StatusCode::BAD_REQUEST, error.class(), text);
        }
        let status = match error {
            UpstreamError::Dial(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, error.class(), format!("Unavailable: {error}"))
    }

    /// The proxy has no configuration to decide by.
    pub fn not_ready() -> Self {
        let text = "Unavailable: the proxy has no configuration yet; it connects to the controller by itself";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", text)
    }

    /// As many requests to the service are under way as its policy allows.
    pub fn overflow(most: u32) -> Self {
        let text =
            format!("Unavailable: {most} requests to the service are under way, and its policy allows no more at once");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overflow", text)
    }

    /// The service's circuit breaker is open, for so long still.
    pub fn degraded(breaker: &CircuitBreaker, left: Duration) -> Self {
        let text = format!(
            "Unavailable: too many requests to the service failed or were slow, and it is left alone for {} ms more",
            left.as_millis()
        );
        let content = Some(breaker.content.clone()).filter(|content| !content.is_empty());
        let retry_after = Some(left.as_secs() + u64::from(left.subsec_nanos() > 0));
        Self { content, retry_after, ..Self::new(breaker.status, CIRCUIT_OPEN, text) }
    }

    /// Whether it stands for a failure of the service, which was asked or could not be.
    pub fn is_of_service(&self) -> bool {
        self.status.is_server_error() && self.reason != PENDING_OVERFLOW
    }

    /// The length of the body, where it is not gRPC's.
    pub fn body_bytes(&self) -> u64 {
        self.content.as_ref().map_or(self.text.len() + 1, String::len) as u64
    }

    /// None of the endpoints may be asked.
    pub fn nobody_left() -> Self {
        let text = "Unavailable: no endpoint of the service is healthy";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_healthy_endpoint", text)
    }

    /// As many requests as may be are under way.
    pub fn overloaded(most: usize) -> Self {
        let text = format!("Unavailable: {most} requests are under way, and the proxy takes no more at once");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", text)
    }

    /// The service's policy gave the request so long; `tries` is about one of its tries.
    pub fn timed_out(after: Duration, tries: bool) -> Self {
        let (reason, what) = if tries { ("try_timeout", "the last try") } else { ("request_timeout", "it") };
        let text = format!(
            "Gateway timeout: the request was not answered in the {} ms that {what} may take",
            after.as_millis()
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, reason, text)
    }

    /// A client asks for a tunnel.
    pub fn no_tunnels() -> Self {
        let text =
            "the proxy makes no tunnels for applications; dial the destination instead, or declare the port as tcp";
        Self::new(StatusCode::NOT_IMPLEMENTED, "connect_unsupported", text)
    }

    /// A client of HTTP/2 asks for another protocol than WebSocket (RFC 8441; RFC 9220, section 3, for the status).
    pub fn unknown_protocol(protocol: &str) -> Self {
        let text = format!("Bad request: \"{protocol}\" is not carried over HTTP/2; only websocket is");
        Self::new(StatusCode::NOT_IMPLEMENTED, "connect_unsupported", text)
    }

    /// A server has agreed to a WebSocket, but its answer to the key is not the one that it must give.
    pub fn no_websocket() -> Self {
        let text = "Unavailable: the server's answer to the WebSocket handshake has no valid Sec-WebSocket-Accept";
        Self::new(StatusCode::BAD_GATEWAY, "upstream_broke_off", text)
    }

    /// As an HTTP response; `grpc` if the request was.
    pub fn into_response(self, grpc: bool) -> Response<Body> {
        let mut response = if grpc { self.grpc_response() } else { self.text_response() };
        response.headers_mut().insert(FSM_DENIED, HeaderValue::from_static(self.reason));
        response
    }

    fn text_response(&self) -> Response<Body> {
        let text = self.content.clone().unwrap_or_else(|| format!("{}\n", self.text));
        let length = HeaderValue::from(text.len());
        let mut response = Response::new(Body::text(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONTENT_LENGTH, length);
        response
    }

    /// See "Trailers-Only" and "HTTP to gRPC status code mapping" in the gRPC protocol's documents.
    fn grpc_response(&self) -> Response<Body> {
        let status = match self.status {
            StatusCode::FORBIDDEN => "7",
            StatusCode::NOT_FOUND => "12",
            StatusCode::GATEWAY_TIMEOUT => "4",
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED => "13",
            _ => "14",
        };
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(status));
        if let Ok(message) = HeaderValue::from_str(&percent_encoded(&self.text)) {
            headers.insert("grpc-message", message);
        }
        response
    }
}

/// As `grpc-message` has it: printable ASCII without `%` stays.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_grpc_status_for_grpc_clients() {
        let reply = Reply::new(StatusCode::FORBIDDEN, "no_policy", "Access denied: 100% no\u{e9}");
        let response = reply.clone().into_response(true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "Access denied: 100%25 no%C3%A9");
        let response = reply.into_response(false);
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[FSM_DENIED], "no_policy");
    }
}
