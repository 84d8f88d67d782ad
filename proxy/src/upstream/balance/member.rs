//! One endpoint of a service port.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fsm_proxy_config::traffic::health::Health;
use fsm_proxy_config::traffic::outliers::Record;
use fsm_proxy_config::traffic::{Feedback, HealthCheck, Outliers};
use serde::Serialize;

use super::Clock;
use super::load::Load;
use super::port::Port;

/// What is known of an endpoint, from one configuration to the next.
#[derive(Debug)]
pub struct Member {
    pub load: Arc<Load>,
    weight: AtomicU32,
    /// When it appeared, or came back; 0: it was there from the beginning.
    since: AtomicU64,
    record: Mutex<Record>,
    /// Something is in the record that going well would clear.
    troubled: AtomicBool,
    /// 0: it was never ejected.
    ejected_until: AtomicU64,
    checked: Mutex<Checked>,
    unhealthy: AtomicBool,
}

/// What health checks said.
#[derive(Debug, Default)]
struct Checked {
    health: Health,
    /// Whether there were any.
    asked: bool,
    /// Why the last one failed; empty: it did not.
    failure: String,
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
    /// It failed too often in a row, and is left out for so long.
    pub ejected_for_ms: Option<u64>,
    /// Ejections that are not forgotten: the next one is as many times longer.
    pub ejections: u32,
    /// What the health checks say; none where there are none.
    pub healthy: Option<bool>,
    /// Why the last health check failed, if it did.
    pub health_check_failure: Option<String>,
}

/// An endpoint whose health is checked.
pub struct Watched {
    pub(super) port: Arc<Port>,
    pub(super) member: Arc<Member>,
}

impl Watched {
    /// Takes in the result of a check: none, or why it failed.
    pub fn checked(&self, check: &HealthCheck, failure: Option<String>) {
        let stats = &self.port.stats;
        stats.health_checks.add(1);
        stats.health_check_failures.add(u64::from(failure.is_some()));
        let mut checked = self.member.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.asked = true;
        if checked.health.note(check, failure.is_none()) {
            let healthy = checked.health.is_healthy();
            self.member.unhealthy.store(!healthy, Ordering::Relaxed);
            if healthy {
                self.member.since.store(self.port.clock.now(), Ordering::Relaxed);
            }
            self.port.version.fetch_add(1, Ordering::Release);
        }
        checked.failure = failure.unwrap_or_default();
    }
}

impl Drop for Watched {
    /// Nobody asks any more: it counts as healthy.
    fn drop(&mut self) {
        *self.member.checked.lock().unwrap_or_else(PoisonError::into_inner) = Checked::default();
        self.member.unhealthy.store(false, Ordering::Relaxed);
        self.port.version.fetch_add(1, Ordering::Release);
    }
}

impl Member {
    /// `since` is the time at which it appeared beside others, or 0.
    pub fn new(load: Arc<Load>, since: u64) -> Self {
        Self {
            load,
            weight: AtomicU32::new(1),
            since: AtomicU64::new(since),
            record: Mutex::default(),
            troubled: AtomicBool::new(false),
            ejected_until: AtomicU64::new(0),
            checked: Mutex::default(),
            unhealthy: AtomicBool::new(false),
        }
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

    /// When its ejection ends, if it is ejected.
    pub fn ejected_until(&self, now: u64) -> Option<u64> {
        Some(self.ejected_until.load(Ordering::Relaxed)).filter(|until| *until > now)
    }

    pub fn is_ejected(&self, now: u64) -> bool {
        self.ejected_until(now).is_some()
    }

    pub fn is_healthy(&self) -> bool {
        !self.unhealthy.load(Ordering::Relaxed)
    }

    /// Takes in how it went. What is still under way when it is ejected says nothing new.
    pub fn is_to_be_ejected(&self, outliers: &Outliers, feedback: Feedback, clock: Clock) -> bool {
        if feedback == Feedback::Well && !self.troubled.load(Ordering::Relaxed) {
            return false;
        }
        if self.is_ejected(clock.now()) {
            return false;
        }
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let too_much = record.note(outliers, feedback);
        self.troubled.store(!record.is_clean(), Ordering::Relaxed);
        too_much
    }

    /// False: it is ejected already.
    pub fn eject(&self, outliers: &Outliers, now: u64) -> bool {
        if self.is_ejected(now) {
            return false;
        }
        let until = self.record.lock().unwrap_or_else(PoisonError::into_inner).eject(outliers, now);
        self.troubled.store(false, Ordering::Relaxed);
        self.ejected_until.store(until, Ordering::Relaxed);
        // It comes back as one that is new.
        self.since.store(until, Ordering::Relaxed);
        true
    }

    pub(super) fn state(&self, clock: Clock) -> MemberState {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        MemberState {
            in_flight: self.load.in_flight(),
            latency_ms: self.load.latency.last(),
            weight: self.weight.load(Ordering::Relaxed),
            unreachable: self.load.is_avoided(clock),
            ejected_for_ms: self.ejected_until(now).map(|until| until - now),
            ejections: self.record.lock().unwrap_or_else(PoisonError::into_inner).times(),
            healthy: checked.asked.then(|| checked.health.is_healthy()),
            health_check_failure: Some(checked.failure.clone()).filter(|failure| !failure.is_empty()),
        }
    }
}
