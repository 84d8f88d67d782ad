//! What is under way at one address, whatever service it is an endpoint of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Clock;
use super::latency::Latency;

/// How long an endpoint that could not be reached is taken only if nothing else is there, in milliseconds.
const PENALTY: u64 = 2_000;

/// The load of an address.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// 0: it was not unreachable.
    avoided_until: AtomicU64,
    pub latency: Latency,
}

/// One request or connection under way at an endpoint, until dropped.
#[must_use = "the endpoint counts as loaded only as long as this is held"]
#[derive(Debug)]
pub struct InFlight(Arc<Load>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Load {
    /// Counts a request or connection.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Remembers that it could not be reached.
    pub(super) fn avoid(&self, clock: Clock) {
        self.avoided_until.store(clock.now() + PENALTY, Ordering::Relaxed);
    }

    /// Whether it could not be reached lately.
    pub(super) fn is_avoided(&self, clock: Clock) -> bool {
        let until = self.avoided_until.load(Ordering::Relaxed);
        until > 0 && until > clock.now()
    }
}
