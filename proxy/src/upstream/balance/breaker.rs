//! The circuit breaker of a service port: closed, or open for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fsm_proxy_config::traffic::CircuitBreaker;
use fsm_proxy_config::traffic::breaker::{Lately, Went};

use super::Clock;
use super::port::Port;

/// What is kept of it from one configuration to the next.
#[derive(Debug, Default)]
pub struct Breaker {
    lately: Mutex<Lately>,
    /// As `lately` has it, for those who only look; 0: it was never open.
    open_until: AtomicU64,
}

/// The circuit is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open<'p> {
    pub breaker: &'p CircuitBreaker,
    pub left: Duration,
}

/// A request under a breaker, until it is known how it went. One that its client gives up before counts if it was slow by then.
#[must_use = "what becomes of the request is told to this"]
pub struct Trial<'p> {
    port: &'p Port,
    breaker: &'p CircuitBreaker,
    begun: Instant,
    end: End,
}

/// What is known of a request's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client waits, or has given it up.
    None,
    Answered {
        badly: bool,
    },
    SaysNothing,
}

impl Breaker {
    pub(super) fn open_for(&self, clock: Clock) -> Option<Duration> {
        let until = self.open_until.load(Ordering::Relaxed);
        let left = if until == 0 { 0 } else { until.saturating_sub(clock.now()) };
        (left > 0).then(|| Duration::from_millis(left))
    }
}

impl<'p> Trial<'p> {
    /// For a request that came when it had `begun`.
    pub(super) fn begin(port: &'p Port, breaker: &'p CircuitBreaker, begun: Instant) -> Result<Self, Open<'p>> {
        match port.breaker.open_for(port.clock) {
            Some(left) => {
                port.stats.breaker_refused.add(1);
                Err(Open { breaker, left })
            }
            None => Ok(Self { port, breaker, begun, end: End::None }),
        }
    }

    /// There is an answer, or there will be none.
    pub fn ended(mut self, badly: bool) {
        self.end = End::Answered { badly };
    }

    /// Its end says nothing about the service.
    pub fn forget(mut self) {
        self.end = End::SaysNothing;
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        let badly = match self.end {
            End::Answered { badly } => badly,
            End::None if self.breaker.slow_after.is_some_and(|time| took >= time) => false,
            End::None | End::SaysNothing => return,
        };
        let (state, clock) = (&self.port.breaker, self.port.clock);
        let mut lately = state.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock.now();
        if lately.note(self.breaker, Went { badly, took }, now) {
            state.open_until.store(lately.open_until(now).unwrap_or_default(), Ordering::Relaxed);
            self.port.stats.breaker_opened.add(1);
            tracing::info!(
                service = self.port.name,
                seconds = self.breaker.degraded.as_secs_f32(),
                "too many requests to the service failed or were slow: it is left alone for a while"
            );
        }
    }
}
