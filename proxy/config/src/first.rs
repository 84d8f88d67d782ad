//! What is known of an outbound connection before its first byte: whether the proxy looks for requests in it.

use std::net::SocketAddr;

use crate::decide::{Connection, Decision, decide};
use crate::snapshot::Snapshot;

/// What to do with the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// Bytes are passed on without waiting for any.
    Opaque,
    /// The client speaks first: HTTP, or TLS that is passed on.
    Http,
    /// The first bytes tell, if they come.
    Undeclared,
}

impl FirstBytes {
    /// Of a connection that the application makes to `destination`.
    pub fn of(snapshot: &Snapshot, destination: SocketAddr) -> Self {
        match decide(snapshot, &Connection::Outbound { destination }, None) {
            Decision::Passthrough(_) => Self::Opaque,
            Decision::Forward(forward) if forward.port.protocol.is_opaque() => Self::Opaque,
            Decision::Forward(forward) if forward.port.protocol.is_http() => Self::Http,
            _ => match snapshot.outbound_protocol(destination) {
                protocol if protocol.is_http() => Self::Http,
                protocol if protocol.is_opaque() => Self::Opaque,
                _ => Self::Undeclared,
            },
        }
    }
}
