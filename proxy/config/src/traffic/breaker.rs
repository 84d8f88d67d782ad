//! A circuit breaker: a service of whose requests too many fail, or are slow, is left alone for a while.
//!
//! Where [outliers](super::outliers) take one endpoint out, this is about the service port as a whole: no endpoint is better than
//! the others, and every request that still comes makes it worse.

use std::time::Duration;

use http::StatusCode;

/// Parts of the window; the oldest is forgotten as a whole.
const SLOTS: usize = 10;
/// All, in the unit of ratios.
const MILLION: u64 = 1_000_000;

/// When the circuit opens, and what is answered then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Requests that ended longer ago do not count.
    pub window: Duration,
    /// With fewer of them in the window, nothing is concluded. At least 1.
    pub least: u32,
    pub errors: Threshold,
    /// Requests that were not answered within this time are slow; none: none are.
    pub slow_after: Option<Duration>,
    pub slow: Threshold,
    /// How long the circuit is open.
    pub degraded: Duration,
    pub status: StatusCode,
    /// The body of the answer; empty: a line of the proxy's own.
    pub content: String,
}

/// How many are too many: a number, a share, or whichever is reached first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Threshold {
    pub amount: Option<u32>,
    /// Of a million requests.
    pub per_million: Option<u32>,
}

impl Threshold {
    fn is_reached(self, count: u32, requests: u32) -> bool {
        let share = |share: u32| u64::from(count) * MILLION >= u64::from(share) * u64::from(requests);
        count > 0 && (self.amount.is_some_and(|amount| count >= amount) || self.per_million.is_some_and(share))
    }
}

/// How a request went, as its client saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Went {
    /// It was not answered, or with a failure.
    pub badly: bool,
    /// From its head to that of its answer.
    pub took: Duration,
}

/// What happened to a service port lately. Times are in milliseconds of any one clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lately {
    slots: [Slot; SLOTS],
    /// How long a slot is; another window has others.
    slot_millis: u64,
    /// The number of the newest slot, from the clock's beginning.
    newest: u64,
    /// 0: it was never open.
    open_until: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    requests: u32,
    errors: u32,
    slow: u32,
}

impl Lately {
    /// When the circuit closes again, if it is open. It closes with nothing remembered.
    pub fn open_until(&self, now: u64) -> Option<u64> {
        Some(self.open_until).filter(|until| *until > now)
    }

    /// Takes in how a request went. What was sent before the circuit opened, and ends while it is open, says nothing new. True: the circuit
    /// opens now.
    pub fn note(&mut self, breaker: &CircuitBreaker, went: Went, now: u64) -> bool {
        if self.open_until(now).is_some() {
            return false;
        }
        self.advance(breaker, now);
        let slot = &mut self.slots[self.newest as usize % SLOTS];
        let slow = breaker.slow_after.is_some_and(|time| went.took >= time);
        for (count, counts) in [(&mut slot.requests, true), (&mut slot.errors, went.badly), (&mut slot.slow, slow)] {
            *count = count.saturating_add(u32::from(counts));
        }
        let of = |part: fn(&Slot) -> u32| self.slots.iter().map(part).fold(0, u32::saturating_add);
        let (requests, errors, slow) = (of(|slot| slot.requests), of(|slot| slot.errors), of(|slot| slot.slow));
        let opens = requests >= breaker.least
            && (breaker.errors.is_reached(errors, requests) || breaker.slow.is_reached(slow, requests));
        if opens {
            self.slots = Default::default();
            self.open_until = now + millis(breaker.degraded);
        }
        opens
    }

    /// Forgets what is no longer in the window.
    fn advance(&mut self, breaker: &CircuitBreaker, now: u64) {
        let length = (millis(breaker.window) / SLOTS as u64).max(1);
        let number = now / length;
        if self.slot_millis != length {
            (self.slots, self.slot_millis, self.newest) = (Default::default(), length, number);
        }
        // One that another thread read a little earlier is now.
        let passed = number.saturating_sub(self.newest).min(SLOTS as u64);
        for ago in 0..passed {
            self.slots[(number - ago) as usize % SLOTS] = Slot::default();
        }
        self.newest = self.newest.max(number);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WELL: Went = Went { badly: false, took: Duration::ZERO };
    const BADLY: Went = Went { badly: true, took: Duration::ZERO };

    fn breaker() -> CircuitBreaker {
        CircuitBreaker {
            window: Duration::from_millis(1_000),
            least: 4,
            errors: Threshold { amount: None, per_million: Some(500_000) },
            slow_after: Some(Duration::from_millis(50)),
            slow: Threshold { amount: Some(3), per_million: None },
            degraded: Duration::from_millis(5_000),
            status: StatusCode::SERVICE_UNAVAILABLE,
            content: String::new(),
        }
    }

    #[test]
    fn half_of_enough_requests_open_it_and_time_closes_it() {
        let (breaker, mut lately) = (breaker(), Lately::default());
        for (went, opens) in [(BADLY, false), (BADLY, false), (WELL, false), (WELL, true)] {
            assert_eq!(lately.note(&breaker, went, 10_000), opens);
        }
        assert_eq!((lately.open_until(10_000), lately.open_until(14_999)), (Some(15_000), Some(15_000)));
        // Those that were under way.
        assert!(!lately.note(&breaker, BADLY, 12_000));
        assert_eq!(lately.open_until(15_000), None);
        assert!((0..3).all(|_| !lately.note(&breaker, BADLY, 15_000)), "what was before is forgotten");
        assert!(lately.note(&breaker, BADLY, 15_000));
    }

    #[test]
    fn slow_ones_count_for_themselves() {
        let (breaker, mut lately) = (breaker(), Lately::default());
        let took = |ms| Went { badly: false, took: Duration::from_millis(ms) };
        for (ms, opens) in [(49, false), (50, false), (20, false), (51, false), (0, false), (9_999, true)] {
            assert_eq!(lately.note(&breaker, took(ms), 7), opens, "{ms}");
        }
    }

    #[test]
    fn with_another_window_it_begins_anew() {
        let (breaker, mut lately, now) = (breaker(), Lately::default(), 3_600_000);
        assert!((0..3).all(|_| !lately.note(&breaker, BADLY, now)));
        let wider = CircuitBreaker { window: Duration::from_secs(60), ..breaker };
        assert!((0..3).all(|_| !lately.note(&wider, BADLY, now)));
        let later = now + 60_000;
        assert!((0..3).all(|_| !lately.note(&wider, BADLY, later)), "what was a minute ago is forgotten");
        assert!(lately.note(&wider, BADLY, later));
    }

    #[test]
    fn a_share_of_nothing_is_not_reached() {
        let all = Threshold { amount: None, per_million: Some(1_000_000) };
        assert!(!all.is_reached(0, 0) && !all.is_reached(9, 10) && all.is_reached(10, 10));
        assert!(all.is_reached(u32::MAX, u32::MAX));
        let one_of_a_thousand = Threshold { amount: None, per_million: Some(1_000) };
        assert!(one_of_a_thousand.is_reached(1, 1_000) && !one_of_a_thousand.is_reached(1, 1_001));
        assert!(!Threshold::default().is_reached(7, 7));
    }

    /// What happens next: after how many milliseconds, and how it goes.
    fn events() -> impl Strategy<Value = Vec<(u64, Went)>> {
        let went =
            (any::<bool>(), 0u64..100).prop_map(|(badly, took)| Went { badly, took: Duration::from_millis(took) });
        let pause = prop_oneof![4 => 0u64..40, 1 => 0u64..3_000];
        proptest::collection::vec((pause, went), 1..300)
    }

    proptest! {
        /// A list of all requests, with the window cut where its slots are.
        #[test]
        fn it_opens_exactly_when_a_list_of_the_requests_says_so(
            events in events(),
            window in 1u64..2_000,
            least in 1u32..8,
            errors in proptest::option::of(1u32..6),
            error_share in proptest::option::of(1u32..=1_000_000),
            slow in proptest::option::of(1u32..6),
            degraded in 1u64..500,
        ) {
            let breaker = CircuitBreaker {
                window: Duration::from_millis(window),
                least,
                errors: Threshold { amount: errors, per_million: error_share },
                slow: Threshold { amount: slow, per_million: None },
                degraded: Duration::from_millis(degraded),
                ..breaker()
            };
            let slot = (window / SLOTS as u64).max(1);
            let (mut lately, mut list, mut now, mut until) = (Lately::default(), Vec::new(), 1_000, 0);
            for (pause, went) in events {
                now += pause;
                prop_assert_eq!(lately.open_until(now), (until > now).then_some(until));
                let opens = lately.note(&breaker, went, now);
                if until > now {
                    prop_assert!(!opens);
                    continue;
                }
                list.push((now, went));
                let counted: Vec<Went> = list.iter().filter(|(at, _)| at / slot + SLOTS as u64 > now / slot).map(|(_, went)| *went).collect();
                // Nothing older than the window counts, and nine tenths of it always do.
                prop_assert!(list.iter().filter(|(at, _)| at + slot * 9 > now).count() <= counted.len());
                prop_assert!(list.iter().filter(|(at, _)| at + slot * 10 > now).count() >= counted.len());
                let bad = counted.iter().filter(|went| went.badly).count() as f64;
                let late = counted.iter().filter(|went| went.took >= Duration::from_millis(50)).count();
                let share = error_share.is_some_and(|share| bad > 0.0 && bad / counted.len() as f64 >= f64::from(share) / 1e6 - 1e-12);
                let many = errors.is_some_and(|most| bad >= f64::from(most)) || slow.is_some_and(|most| late >= most as usize);
                prop_assert_eq!(opens, counted.len() >= least as usize && (share || many), "at {} with {} counted", now, counted.len());
                if opens {
                    until = now + degraded;
                    list.clear();
                }
            }
        }

        #[test]
        fn good_requests_never_open_it_whichever_thread_read_the_clock(events in events(), back in 0u64..100) {
            let (breaker, mut lately, mut now) = (breaker(), Lately::default(), 1_000u64);
            for (pause, _) in events {
                now += pause;
                for read in [now, now - back] {
                    prop_assert!(!lately.note(&breaker, WELL, read));
                    prop_assert_eq!(lately.open_until(read), None);
                }
            }
        }
    }
}
