//! What is told of one request, or of one opaque connection, after its end.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use fsm_proxy_config::LogFormat;

use crate::metrics::Direction;
use crate::trace::Joined;

/// Texts are empty where there is nothing to say.
#[derive(Clone, Debug)]
pub struct Entry {
    pub start: SystemTime,
    pub direction: Direction,
    /// The seq of the configuration that decided.
    pub seq: u64,
    /// None for an opaque connection.
    pub request: Option<Asked>,
    /// The status that the client got; none: the client was gone before.
    pub status: Option<u16>,
    /// Why it did not go well: the word of the header `fsm-denied`, `client_gone` or `broke_off`.
    pub reason: String,
    /// A sentence about it.
    pub details: String,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub duration: Duration,
    /// From the request's head to the response's.
    pub first_byte: Option<Duration>,
    /// Where it was meant to go: `ns/name` of a service. For an opaque connection that went nowhere, see `upstream`.
    pub service: String,
    /// Where it went: `ns/name` of the service that a split chose.
    pub backend: String,
    pub split: String,
    /// The TrafficTarget that allowed it, and the route group or TCP route.
    pub policy: String,
    pub route: String,
    /// The caller's identity, from its certificate.
    pub source: String,
    /// The endpoint, or the address that was dialled.
    pub upstream: Option<SocketAddr>,
    /// `ns/name` of the endpoint's pod.
    pub pod: String,
    pub retries: u32,
    pub trace: Option<Joined>,
}

/// The head of a request, as far as it is told.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    pub method: String,
    pub path: String,
    pub authority: String,
    pub user_agent: String,
    pub request_id: String,
}

impl Entry {
    /// Whether it ended otherwise than the client can have wished: no answer, an answer of a proxy, or a status of the server's failure.
    pub fn is_error(&self) -> bool {
        !self.reason.is_empty() || self.status.is_some_and(|status| status >= 500)
    }

    /// Whether bytes were carried as they are: the connection was opaque, or switched to another protocol.
    pub fn is_connection(&self) -> bool {
        self.request.is_none() || self.status == Some(101)
    }

    /// The line of the access log, with its end.
    pub fn line(&self, format: LogFormat, into: &mut Vec<u8>) {
        match format {
            LogFormat::Json => super::json::write(self, into),
            LogFormat::Text => super::text::write(self, into),
        }
        into.push(b'\n');
    }

    /// The moment of the start, as RFC 3339 has it.
    pub(super) fn start_text(&self) -> String {
        let start = jiff::Timestamp::try_from(self.start).unwrap_or_default();
        format!("{start:.3}")
    }
}
