//! What the actors count for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts since the process began. What the log says is not counted here: it can be counted from the log.
#[derive(Debug, Default)]
pub struct Counters {
    versions: AtomicU64,
    updates: AtomicU64,
    restarts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    /// A version was published, with this many proxies affected.
    pub(crate) fn published(&self, proxies: usize) {
        self.versions.fetch_add(1, Ordering::Relaxed);
        self.updates.fetch_add(proxies as u64, Ordering::Relaxed);
    }

    /// An actor panicked and was restarted.
    pub(crate) fn restarted(&self, actor: &'static str) {
        *self.restarts.lock().unwrap_or_else(PoisonError::into_inner).entry(actor).or_default() += 1;
    }

    /// Versions that were published (batches of records that every concern had reached).
    pub fn versions(&self) -> u64 {
        self.versions.load(Ordering::Relaxed)
    }

    /// Updates that were handed to proxies' sessions, over all versions.
    pub fn updates(&self) -> u64 {
        self.updates.load(Ordering::Relaxed)
    }

    /// Restarts after a panic, by actor.
    pub fn restarts(&self) -> BTreeMap<&'static str, u64> {
        self.restarts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
