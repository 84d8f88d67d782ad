//! Replies that the proxy makes itself.
//!
//! Each has a line of text, and the header `fsm-denied` with a stable word, so that a client can tell them from the
//! application's. gRPC clients get the gRPC status that means the same, in a response without body
//! ("Trailers-Only"), as they ignore other text.

use std::time::Duration;

use fsm_proxy_config::Refusal;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::headers::FSM_DENIED;
use crate::stream::Body;
use crate::upstream::UpstreamError;

/// A reply of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    /// One of few words, for metrics and for the header `fsm-denied`.
    pub reason: &'static str,
    pub text: String,
}

impl Reply {
    pub fn new(status: StatusCode, reason: &'static str, text: impl Into<String>) -> Self {
        Self { status, reason, text: text.into() }
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
        let mut response = Response::new(Body::text(format!("{}\n", self.text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.text.len() + 1));
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
