//! One endpoint of a service port.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::Clock;
use super::load::Load;

/// What is known of an endpoint, from one configuration to the next.
#[derive(Debug)]
pub struct Member {
    pub load: Arc<Load>,
    weight: AtomicU32,
    /// When it appeared, or came back; 0: it was there from the beginning.
    since: AtomicU64,
}

/// An endpoint as the balancer sees it, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemberState {
    /// Requests and connections under way, those for other services too.
    pub in_flight: u32,
    /// The moving average of what it takes to answer, if the algorithm measures that.
    pub latency_ms: Option<f32>,
    pub weight: u32,
    /// It could not be reached in the last seconds, and is taken only if nothing else is there.
    pub unreachable: bool,
}

impl Member {
    /// `since` is the time at which it appeared beside others, or 0.
    pub fn new(load: Arc<Load>, since: u64) -> Self {
        Self { load, weight: AtomicU32::new(1), since: AtomicU64::new(since) }
    }

    /// For dumps: selection takes the weight from the configuration.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    /// How long it has been there, if that is not since the beginning.
    pub fn age(&self, now: u64) -> Option<Duration> {
        match self.since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Duration::from_millis(now.saturating_sub(since))),
        }
    }

    pub(super) fn state(&self, clock: Clock) -> MemberState {
        MemberState {
            in_flight: self.load.in_flight(),
            latency_ms: self.load.latency.last(),
            weight: self.weight.load(Ordering::Relaxed),
            unreachable: self.load.is_avoided(clock),
        }
    }
}
