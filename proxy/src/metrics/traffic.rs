//! What load balancing, retries and limits did, by service port. Names are Envoy's, with FSM's prefix.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::Counter;

/// The counters of one service port.
#[derive(Debug, Default)]
pub struct TrafficStats {
    /// Requests that were answered after they had been sent again.
    pub retry_success: Counter,
    /// Requests that were sent again as often as may be, in vain.
    pub retry_limit_exceeded: Counter,
    /// Retries that the budget or a limit forbade.
    pub retry_overflow: Counter,
    /// Retries that waited before they were sent.
    pub retry_backoff: Counter,
    /// Requests that took longer than they may.
    pub timeouts: Counter,
    /// Tries that did.
    pub per_try_timeouts: Counter,
    /// Requests, those that would have had to wait for a connection included, and opaque connections beyond the limits.
    pub request_overflow: Counter,
    pub connection_overflow: Counter,
    /// Endpoints that were ejected, and those that were not as too many were.
    pub ejections: Counter,
    pub ejections_overflow: Counter,
    /// How often the circuit breaker opened, and requests that were refused while it was open.
    pub breaker_opened: Counter,
    pub breaker_refused: Counter,
    pub health_checks: Counter,
    pub health_check_failures: Counter,
}

impl TrafficStats {
    /// Name, meaning and value of each.
    fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [
            ("upstream_rq_retry_success", "Requests that succeeded after a retry.", &self.retry_success),
            ("upstream_rq_retry_limit_exceeded", "Requests given up after all retries.", &self.retry_limit_exceeded),
            ("upstream_rq_retry_overflow", "Retries that the budget or a limit forbade.", &self.retry_overflow),
            ("upstream_rq_retry_backoff_exponential", "Retries that waited first.", &self.retry_backoff),
            ("upstream_rq_timeout", "Requests that took longer than they may.", &self.timeouts),
            ("upstream_rq_per_try_timeout", "Tries that took longer than they may.", &self.per_try_timeouts),
            ("upstream_rq_pending_overflow", "Requests refused for a limit.", &self.request_overflow),
            ("upstream_cx_overflow", "Connections refused for the limit of connections.", &self.connection_overflow),
            ("outlier_detection_ejections_total", "Endpoints that were ejected.", &self.ejections),
            ("outlier_detection_ejections_overflow", "Ejections forbidden, as too many are.", &self.ejections_overflow),
            ("circuit_breaker_opened", "Times the circuit breaker opened.", &self.breaker_opened),
            ("circuit_breaker_refused", "Requests refused while it was open.", &self.breaker_refused),
            ("health_check_attempt", "Health checks.", &self.health_checks),
            ("health_check_failure", "Health checks that failed.", &self.health_check_failures),
        ]
        .map(|(name, help, counter)| (name, help, counter.get()))
        .into_iter()
    }
}

/// By service (`ns/name`) and port.
type ByPort<T> = BTreeMap<(Arc<str>, u16), T>;

/// Those of all service ports that have been used.
#[derive(Debug, Default)]
pub struct TrafficTable(RwLock<ByPort<Arc<TrafficStats>>>);

/// What a counter means, and its values.
pub struct Family {
    pub help: &'static str,
    pub values: ByPort<u64>,
}

impl TrafficTable {
    /// The counters of a port; to be kept, not to be asked for each request.
    pub fn of(&self, service: &Arc<str>, port: u16) -> Arc<TrafficStats> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(table.entry((Arc::clone(service), port)).or_default())
    }

    /// All counters, by name.
    pub fn families(&self) -> BTreeMap<&'static str, Family> {
        let mut families = BTreeMap::new();
        for (port, stats) in &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            for (name, help, value) in stats.all() {
                let family = families.entry(name).or_insert_with(|| Family { help, values: ByPort::new() });
                family.values.insert(port.clone(), value);
            }
        }
        families
    }
}
