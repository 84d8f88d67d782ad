//! The decision about one connection or request.

use std::net::SocketAddr;

use crate::identity::SpiffeId;
use crate::snapshot::Snapshot;

/// What is known of a connection before any byte is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// From the application, to the address that it dialled.
    Outbound { destination: SocketAddr },
    /// From another workload's proxy, to `port` of the application. `peer` is from the verified certificate.
    Inbound { port: u16, peer: Option<SpiffeId> },
}

/// What is known of a request before its body: HTTP only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    pub method: &'a str,
    /// The Host header or `:authority`, as sent.
    pub authority: &'a str,
    /// Path and query, as sent.
    pub path: &'a str,
    pub headers: &'a http::HeaderMap,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Placeholder,
}

/// The decision for a connection (`head` is none: opaque TCP) or for a request on it.
pub fn decide(_snapshot: &Snapshot, _connection: &Connection, _head: Option<&RequestHead<'_>>) -> Decision {
    Decision::Placeholder
}
