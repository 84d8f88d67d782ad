//! Refusals: a status for HTTP, a stable word for metrics, a sentence for people.

use std::fmt;

use crate::flaw::Flaw;

/// Why something was refused, as a word for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Either: what the request asks for is not certain.
    BadRequest(Flaw),
    /// Outbound: no service or pod of the mesh, and egress is off.
    UnknownDestination,
    /// Outbound: the service is known, and has no such port.
    NoSuchPort,
    /// Outbound: no backend can take traffic.
    NoBackend,
    /// Inbound: no client certificate.
    NoPeer,
    /// Inbound: the peer is of another trust domain.
    ForeignPeer,
    /// Inbound: no TrafficTarget names the caller.
    NoPolicy,
    /// Inbound: a TrafficTarget names the caller, and its rules do not match.
    NoRule,
}

impl RefusalKind {
    /// The word used in metrics, logs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::UnknownDestination => "unknown_destination",
            Self::NoSuchPort => "no_such_port",
            Self::NoBackend => "no_backend",
            Self::NoPeer => "no_peer",
            Self::ForeignPeer => "foreign_peer",
            Self::NoPolicy => "no_policy",
            Self::NoRule => "no_rule",
        }
    }

    /// The HTTP status to answer: 403 for what is not allowed, 503 for what may come.
    pub fn status(self) -> http::StatusCode {
        match self {
            Self::BadRequest(flaw) => flaw.status(),
            Self::NoBackend => http::StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSuchPort => http::StatusCode::NOT_FOUND,
            _ => http::StatusCode::FORBIDDEN,
        }
    }
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal. Its text names what was missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// The HTTP status to answer.
    pub fn status(&self) -> http::StatusCode {
        self.kind.status()
    }
}
