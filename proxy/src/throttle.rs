//! One message for many events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets one event pass in each interval, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    start: Instant,
    interval: Duration,
    /// The end of the current interval, in microseconds since `start`.
    next_us: AtomicU64,
    held_back: AtomicU64,
}

impl Throttle {
    pub fn new(interval: Duration) -> Self {
        Self { start: Instant::now(), interval, next_us: AtomicU64::new(0), held_back: AtomicU64::new(0) }
    }

    /// If this event may pass: how many were held back since the last one that did.
    pub fn pass(&self) -> Option<u64> {
        self.pass_at(self.start.elapsed())
    }

    fn pass_at(&self, now: Duration) -> Option<u64> {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let next = self.next_us.load(Ordering::Relaxed);
        let due = us(now) >= next
            && self
                .next_us
                .compare_exchange(next, us(now + self.interval), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if due {
            return Some(self.held_back.swap(0, Ordering::Relaxed));
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_passes_in_each_interval() {
        let throttle = Throttle::new(Duration::from_secs(10));
        let passed: Vec<_> = [0, 1, 9, 10, 11, 30].map(|at| throttle.pass_at(Duration::from_secs(at))).into();
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
