//! Outlier ejection: an endpoint that fails again and again is left out for a while.

use std::time::Duration;

/// When endpoints are ejected, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outliers {
    /// Failures of any kind in a row.
    pub errors: Option<u32>,
    /// Of these, those of who stands before an application, or could not reach it.
    pub gateway_errors: Option<u32>,
    /// Connections in a row that could not be made.
    pub connect_failures: Option<u32>,
    /// After so long without being ejected, one ejection is forgotten.
    pub interval: Duration,
    /// The first ejection; the n-th takes n times as long.
    pub base: Duration,
    pub longest: Duration,
    /// Of the endpoints of the service port, at once.
    pub max_percent: u32,
}

/// How a request or connection went, as far as its endpoint is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    /// Any answer but a failure.
    Well,
    /// A status from 500 to 599, other than those of gateways.
    Error,
    /// 502, 503, 504, a connection that broke, or an answer that took too long.
    Gateway,
    /// No connection.
    Unreachable,
}

impl Feedback {
    /// What a status says; `grpc` is the status of gRPC in the same head.
    pub fn of(status: http::StatusCode, grpc: Option<u16>) -> Self {
        match (status.as_u16(), grpc) {
            (502..=504, _) | (_, Some(4 | 14)) => Self::Gateway,
            (500..=599, _) | (_, Some(2 | 13 | 15)) => Self::Error,
            _ => Self::Well,
        }
    }
}

/// What is remembered of one endpoint. Times are in milliseconds of any one clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    errors: u32,
    gateway_errors: u32,
    connect_failures: u32,
    /// Ejections that are not forgotten.
    times: u32,
    /// The end of the last ejection; 0: there was none.
    until: u64,
}

impl Record {
    /// Takes in how it went. True: the endpoint is to be ejected, if there is room.
    pub fn note(&mut self, outliers: &Outliers, feedback: Feedback) -> bool {
        let count = |counter: &mut u32, counts: bool| *counter = if counts { counter.saturating_add(1) } else { 0 };
        count(&mut self.errors, feedback != Feedback::Well);
        count(&mut self.gateway_errors, matches!(feedback, Feedback::Gateway | Feedback::Unreachable));
        count(&mut self.connect_failures, feedback == Feedback::Unreachable);
        let reached = |counter: u32, bound: Option<u32>| bound.is_some_and(|bound| counter >= bound);
        reached(self.errors, outliers.errors)
            || reached(self.gateway_errors, outliers.gateway_errors)
            || reached(self.connect_failures, outliers.connect_failures)
    }

    /// Whether nothing is counted, so that going well changes nothing.
    pub fn is_clean(&self) -> bool {
        self.errors == 0
    }

    /// Ejects it, until the time that is given back.
    pub fn eject(&mut self, outliers: &Outliers, now: u64) -> u64 {
        let calm = now.saturating_sub(self.until) / (outliers.interval.as_millis() as u64).max(1);
        let forgotten = u32::try_from(calm).unwrap_or(u32::MAX);
        let times = self.times.saturating_sub(forgotten).saturating_add(1);
        let time = outliers.base.saturating_mul(times).min(outliers.longest);
        *self = Self { times, until: now + (time.as_millis() as u64).max(1), ..Self::default() };
        self.until
    }

    /// Ejections that are not forgotten.
    pub fn times(&self) -> u32 {
        self.times
    }
}

impl Outliers {
    /// Whether one more of `total` endpoints may be ejected when `ejected` are.
    pub fn has_room(&self, ejected: usize, total: usize) -> bool {
        (ejected + 1) * 100 <= self.max_percent as usize * total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outliers() -> Outliers {
        Outliers {
            errors: Some(5),
            gateway_errors: Some(3),
            connect_failures: Some(2),
            interval: Duration::from_secs(10),
            base: Duration::from_secs(30),
            longest: Duration::from_secs(100),
            max_percent: 50,
        }
    }

    #[test]
    fn only_failures_in_a_row_count_each_kind_for_itself() {
        use Feedback::{Error, Gateway, Unreachable, Well};
        for (row, ejected) in [
            (&[Error; 5][..], true),
            (&[Error; 4], false),
            (&[Error, Error, Error, Error, Well, Error], false),
            (&[Gateway; 3], true),
            (&[Gateway, Gateway, Error, Gateway], false),
            (&[Unreachable; 2], true),
            (&[Unreachable, Gateway, Unreachable], true),
            (&[Unreachable, Error, Unreachable], false),
            (&[Error, Error, Gateway, Gateway, Unreachable], true),
        ] {
            let mut record = Record::default();
            let results: Vec<bool> = row.iter().map(|one| record.note(&outliers(), *one)).collect();
            assert_eq!(*results.last().unwrap(), ejected, "{row:?}");
            assert!(results[..results.len() - 1].iter().all(|one| !one), "{row:?}");
        }
        assert_eq!(Feedback::of(http::StatusCode::OK, Some(14)), Gateway);
        assert_eq!(Feedback::of(http::StatusCode::INTERNAL_SERVER_ERROR, None), Error);
        assert_eq!(Feedback::of(http::StatusCode::NOT_FOUND, Some(5)), Well);
    }

    #[test]
    fn the_next_ejection_takes_longer_until_it_is_forgotten() {
        let (outliers, mut record) = (outliers(), Record::default());
        assert_eq!(record.eject(&outliers, 1_000), 31_000);
        assert_eq!(record.eject(&outliers, 31_000), 91_000);
        assert_eq!(record.eject(&outliers, 95_000), 185_000);
        // Not longer than the longest.
        assert_eq!(record.eject(&outliers, 190_000), 290_000);
        // Four of them, of which two are forgotten after 20 s.
        assert_eq!(record.eject(&outliers, 310_000), 400_000);
        assert_eq!(record.eject(&outliers, 1_000_000), 1_030_000);
    }

    proptest! {
        #[test]
        fn never_more_than_the_percentage_is_ejected(total in 0usize..50, max_percent in 0u32..=100) {
            let outliers = Outliers { max_percent, ..outliers() };
            let ejected = (0..total).take_while(|ejected| outliers.has_room(*ejected, total)).count();
            prop_assert!(ejected * 100 <= max_percent as usize * total);
            // And so many may be.
            prop_assert!(ejected == total || (ejected + 1) * 100 > max_percent as usize * total);
        }
    }
}
