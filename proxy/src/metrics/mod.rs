//! What the proxy counts: named once, here, and written in `text.rs`.
//!
//! Counters are plain atomics. Those of a service are looked up once for each request, without allocating.

mod histogram;
mod page;
mod process;
mod requests;
pub mod serve;
#[cfg(test)]
mod tests;
pub mod text;
mod traffic;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

pub use histogram::Histogram;
pub use page::Form;
pub use requests::{ConnectionTimer, Failure, RequestStats, RequestTimer};
pub use traffic::{TrafficStats, TrafficTable};

use crate::account::{Lines, Sent};
use requests::RequestTable;

/// Which way traffic goes, seen from the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connections: how many there were, and how many are open.
#[derive(Debug, Default)]
pub struct Connections {
    total: Counter,
    open: AtomicI64,
}

/// One open connection, until dropped.
#[derive(Debug)]
pub struct OpenConnection(Arc<Connections>);

impl Connections {
    /// Counts a connection from now until the value is dropped.
    pub fn open(self: &Arc<Self>) -> OpenConnection {
        self.total.add(1);
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(self))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Everything that one proxy counts.
#[derive(Default)]
pub struct Metrics {
    /// Connections that the application made and that came to this proxy.
    pub captured: Arc<Connections>,
    /// Mutual TLS with other proxies, accepted and made.
    pub mesh_inbound: Arc<Connections>,
    pub mesh_outbound: Arc<Connections>,
    /// Plain connections that left this proxy for other hosts.
    pub plain_outbound: Arc<Connections>,
    /// Opaque streams within the mesh, by side.
    pub tunnels_inbound: Arc<Connections>,
    pub tunnels_outbound: Arc<Connections>,
    /// Plain connections from outside the mesh to the application, all refused.
    pub plaintext_refused: Counter,
    /// Connections from other proxies that came to nothing before the first request.
    pub handshakes_failed: Counter,
    /// Endpoints that did not prove to be who they should be, or did not finish the handshake.
    pub dials_failed: Arc<Counter>,
    /// Requests that were sent again, to another endpoint or on a new connection.
    pub retries: Counter,
    /// Lines of the access log, its entries that go to a server, and spans of requests.
    pub(crate) lines: Arc<Lines>,
    pub(crate) remote_entries: Arc<Sent>,
    pub(crate) spans: Arc<Sent>,
    /// What load balancing, retries and limits did, by service port.
    pub traffic: Arc<TrafficTable>,
    requests: RequestTable,
    refused: RwLock<BTreeMap<(Direction, &'static str), Arc<Counter>>>,
}

/// For the admin endpoint `/stats`: sums of what the metrics page tells in detail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub connections: ConnectionSummary,
    pub requests: BTreeMap<&'static str, u64>,
    pub refused: BTreeMap<String, u64>,
    pub retries: u64,
    /// The access log and spans, written and sent.
    pub told: Told,
}

/// What was told of single requests, and what was lost on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    pub lines: u64,
    pub lines_lost: u64,
    pub remote_entries: u64,
    pub remote_entries_lost: u64,
    pub spans: u64,
    pub spans_lost: u64,
}

/// Connections so far, between this proxy and other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionSummary {
    pub mtls: u64,
    pub plaintext: u64,
    pub plaintext_refused: u64,
}

impl Metrics {
    /// The counters of requests between a service of the mesh and, outbound, the backend that got them, inbound, the
    /// service account (`ns/name`) that sent them.
    pub fn requests(&self, direction: Direction, service: &str, other: &str) -> Arc<RequestStats> {
        self.requests.get(direction, service, other)
    }

    /// Counts a request or connection that the proxy answered itself.
    pub fn refused(&self, direction: Direction, reason: &'static str) {
        let key = (direction, reason);
        if let Some(counter) = self.refused.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return counter.add(1);
        }
        let mut refused = self.refused.write().unwrap_or_else(PoisonError::into_inner);
        refused.entry(key).or_default().add(1);
    }

    /// The numbers at a glance.
    pub fn summary(&self) -> Summary {
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner);
        Summary {
            connections: ConnectionSummary {
                mtls: self.mesh_inbound.total.get() + self.mesh_outbound.total.get(),
                plaintext: self.plain_outbound.total.get(),
                plaintext_refused: self.plaintext_refused.get(),
            },
            requests: [Direction::Inbound, Direction::Outbound]
                .map(|direction| (direction.as_str(), self.requests.total(direction)))
                .into(),
            refused: refused
                .iter()
                .map(|((direction, reason), count)| (format!("{} {reason}", direction.as_str()), count.get()))
                .collect(),
            retries: self.retries.get(),
            told: Told {
                lines: self.lines.written.get(),
                lines_lost: self.lines.lost.get(),
                remote_entries: self.remote_entries.sent.get(),
                remote_entries_lost: self.remote_entries.lost.get(),
                spans: self.spans.sent.get(),
                spans_lost: self.spans.lost.get(),
            },
        }
    }
}
