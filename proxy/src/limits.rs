//! Bounds on what one proxy takes on.

use std::time::Duration;

/// Bounds that hold whatever the configuration says. Time-outs that the mesh sets are in the snapshot's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that each listener serves at once; more wait in the kernel's backlog.
    pub connections: usize,
    /// Requests that are under way at once, those of the application and those to it each for themselves; more are answered 503.
    pub requests: usize,
    /// The head of a message, in bytes. In HTTP/1 it may have 100 fields, as with most servers: for so many a parser
    /// needs no memory of its own.
    pub head_bytes: u32,
    /// How long scrapers and probers may be idle, and what the beginning of an HTTP/2 connection may take.
    pub head_timeout: Duration,
    /// How long a client of an undeclared protocol may be silent before it is taken as opaque.
    pub sniff_timeout: Duration,
    /// The TLS handshake, on either side.
    pub handshake_timeout: Duration,
    /// Work under way at the end may take this long.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16 * 1024,
            requests: 16 * 1024,
            head_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(30),
            sniff_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
