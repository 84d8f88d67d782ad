//! Requests by service.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use http::StatusCode;

use super::{Counter, Direction, Histogram};
use crate::stream::{End, Metered, Way};

/// The counters of the requests between two parties.
#[derive(Debug, Default)]
pub struct RequestStats {
    /// Responses by their status. Most services use few of them, so each hundred is there from the first one on.
    codes: [OnceLock<Box<[Counter; 100]>>; 5],
    /// Requests that got no response.
    none: Counter,
    failures: Failures,
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

/// What became of attempts that came to nothing.
#[derive(Debug, Default)]
pub struct Failures {
    /// Endpoints that could not be reached.
    pub unreachable: Counter,
    /// Of these, those that did not answer in time.
    pub timed_out: Counter,
    /// The other end broke off before it answered.
    pub broken: Counter,
    /// The client gave up, or its request's body broke off.
    pub given_up: Counter,
}

/// Why an attempt came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    Unreachable,
    TimedOut,
    Broken,
    GivenUp,
    /// It is counted elsewhere: a time-out, or a refusal by the other end's proxy.
    Elsewhere,
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
    /// Of the response; 0: none.
    status: u16,
    failed: bool,
}

impl RequestStats {
    /// Begins to count a request.
    pub fn begin(self: Arc<Self>, start: Instant) -> RequestTimer {
        self.open.fetch_add(1, Ordering::Relaxed);
        RequestTimer { stats: self, start, status: 0, failed: false }
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

    /// Counts an attempt that came to nothing.
    pub fn failed(&self, failure: Failure) {
        let failures = &self.failures;
        match failure {
            Failure::Unreachable => failures.unreachable.add(1),
            Failure::TimedOut => {
                failures.unreachable.add(1);
                failures.timed_out.add(1);
            }
            Failure::Broken => failures.broken.add(1),
            Failure::GivenUp => failures.given_up.add(1),
            Failure::Elsewhere => {}
        }
    }

    /// Attempts that came to nothing.
    pub fn failures(&self) -> &Failures {
        &self.failures
    }

    fn ended(&self, status: u16) {
        let counter = match usize::from(status).checked_sub(100) {
            Some(index) if index < 500 => {
                let hundred =
                    self.codes[index / 100].get_or_init(|| Box::new(std::array::from_fn(|_| Counter::default())));
                &hundred[index % 100]
            }
            _ => &self.none,
        };
        counter.add(1);
    }

    /// Responses by their status; 0: none came. Only those that came.
    pub fn by_code(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let hundreds = self.codes.iter().enumerate().filter_map(|(index, codes)| Some((index, codes.get()?)));
        let codes = hundreds.flat_map(|(index, codes)| {
            codes.iter().enumerate().map(move |(code, counter)| ((index + 1) * 100 + code, counter.get()))
        });
        std::iter::once((0, self.none.get())).chain(codes).filter(|(_, count)| *count > 0)
    }

    /// Responses by the first digit of their status; 0: none came.
    pub fn by_class(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        let mut classes = [0; 6];
        for (code, count) in self.by_code() {
            classes[code / 100] += count;
        }
        classes.into_iter().enumerate()
    }

    /// All requests that came to an end.
    pub fn total(&self) -> u64 {
        self.by_code().map(|(_, count)| count).sum()
    }

    /// Those that got no response.
    pub fn without_response(&self) -> u64 {
        self.none.get()
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
        self.status = status.as_u16();
    }

    /// An attempt came to nothing.
    pub fn failed(&mut self, failure: Failure) {
        self.failed = true;
        self.stats.failed(failure);
    }
}

impl Drop for RequestTimer {
    fn drop(&mut self) {
        self.stats.open.fetch_sub(1, Ordering::Relaxed);
        self.stats.ended(self.status);
        if self.status == 0 && !self.failed {
            // Nobody waits for an answer any more.
            self.stats.failed(Failure::GivenUp);
        }
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
