//! Requests by service.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use http::StatusCode;

use super::{Counter, Direction, Histogram};
use crate::stream::{End, Metered, Way};

/// The counters of the requests between two parties.
#[derive(Debug, Default)]
pub struct RequestStats {
    /// Responses by the first digit of their status; 0: none.
    classes: [Counter; 6],
    open: AtomicI64,
    retries: Counter,
    /// Bytes of bodies, from the client and to it.
    received: Counter,
    sent: Counter,
    duration: Histogram,
    /// Opaque connections: how many, how many are open, how long those that ended were.
    connections: Counter,
    connections_open: AtomicI64,
    connections_length: Histogram,
}

/// One opaque connection, counted as open until dropped.
#[derive(Debug)]
pub struct ConnectionTimer {
    stats: Arc<RequestStats>,
    start: Instant,
}

impl ConnectionTimer {
    /// What it counts for.
    pub fn stats(&self) -> &Arc<RequestStats> {
        &self.stats
    }
}

impl Drop for ConnectionTimer {
    fn drop(&mut self) {
        self.stats.connections_open.fetch_sub(1, Ordering::Relaxed);
        self.stats.connections_length.record(self.start.elapsed());
    }
}

/// One request under way. When dropped, at the end of the response's body, it is counted with its duration.
#[derive(Debug)]
pub struct RequestTimer {
    stats: Arc<RequestStats>,
    start: Instant,
    class: usize,
}

impl RequestStats {
    /// Begins to count a request.
    pub fn begin(self: Arc<Self>, start: Instant) -> RequestTimer {
        self.open.fetch_add(1, Ordering::Relaxed);
        RequestTimer { stats: self, start, class: 0 }
    }

    /// Begins to count an opaque connection.
    pub fn connect(self: Arc<Self>) -> ConnectionTimer {
        self.connections.add(1);
        self.connections_open.fetch_add(1, Ordering::Relaxed);
        ConnectionTimer { stats: self, start: Instant::now() }
    }

    /// Opaque connections so far, and those that are open.
    pub fn connections(&self) -> (u64, i64) {
        (self.connections.get(), self.connections_open.load(Ordering::Relaxed))
    }

    /// How long those opaque connections were that have ended.
    pub fn connections_length(&self) -> &Histogram {
        &self.connections_length
    }

    /// Responses by the first digit of their status; 0: none came.
    pub fn by_class(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.classes.iter().map(Counter::get).enumerate()
    }

    /// All requests that came to an end.
    pub fn total(&self) -> u64 {
        self.classes.iter().map(Counter::get).sum()
    }

    /// Requests under way.
    pub fn open(&self) -> i64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Requests that were sent again, to another endpoint or on a new connection.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// Bytes of the bodies of requests.
    pub fn received_bytes(&self) -> u64 {
        self.received.get()
    }

    /// Bytes of the bodies of responses.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.get()
    }

    /// From a request's head to the end of its response.
    pub fn duration(&self) -> &Histogram {
        &self.duration
    }
}

impl Metered for RequestStats {
    fn passed(&self, way: Way, bytes: u64, _end: End) {
        match way {
            Way::Request => self.received.add(bytes),
            Way::Response => self.sent.add(bytes),
        }
    }
}

impl RequestTimer {
    /// What it counts for.
    pub fn stats(&self) -> &Arc<RequestStats> {
        &self.stats
    }

    /// The request is sent again.
    pub fn retried(&self) {
        self.stats.retries.add(1);
    }

    /// The head of the response is there.
    pub fn answered(&mut self, status: StatusCode) {
        self.class = usize::from(status.as_u16() / 100).min(5);
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        self.stats.open.fetch_sub(1, Ordering::Relaxed);
        self.stats.classes[self.class].add(1);
        self.stats.duration.record(self.start.elapsed());
    }
}

type ByService = HashMap<String, HashMap<String, Arc<RequestStats>>>;

/// All of them, by direction, service and the other party.
#[derive(Debug, Default)]
pub struct RequestTable {
    inbound: RwLock<ByService>,
    outbound: RwLock<ByService>,
}

impl RequestTable {
    pub fn get(&self, direction: Direction, service: &str, other: &str) -> Arc<RequestStats> {
        let table = self.of(direction);
        let known = |table: &ByService| table.get(service).and_then(|others| others.get(other)).cloned();
        if let Some(stats) = known(&table.read().unwrap_or_else(PoisonError::into_inner)) {
            return stats;
        }
        let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(table.entry(service.to_owned()).or_default().entry(other.to_owned()).or_default())
    }

    pub fn total(&self, direction: Direction) -> u64 {
        let table = self.of(direction).read().unwrap_or_else(PoisonError::into_inner);
        table.values().flat_map(HashMap::values).map(|stats| stats.total()).sum()
    }

    /// In order of the names.
    pub fn sorted(&self, direction: Direction) -> BTreeMap<(String, String), Arc<RequestStats>> {
        let table = self.of(direction).read().unwrap_or_else(PoisonError::into_inner);
        let of = |service: &String, others: &HashMap<String, Arc<RequestStats>>| -> Vec<_> {
            others.iter().map(|(other, stats)| ((service.clone(), other.clone()), Arc::clone(stats))).collect()
        };
        table.iter().flat_map(|(service, others)| of(service, others)).collect()
    }

    fn of(&self, direction: Direction) -> &RwLock<ByService> {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}
