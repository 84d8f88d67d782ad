//! Requests by service.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use http::StatusCode;

use super::{Counter, Direction, Histogram};

/// The counters of the requests between two parties.
#[derive(Debug, Default)]
pub struct RequestStats {
    /// Responses by the first digit of their status; 0: none.
    classes: [Counter; 6],
    open: AtomicI64,
    retries: Counter,
    duration: Histogram,
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

    /// From a request's head to the end of its response.
    pub fn duration(&self) -> &Histogram {
        &self.duration
    }
}

impl RequestTimer {
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
