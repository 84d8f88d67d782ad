//! When a request is sent again.
//!
//! Apart from what is here, the data path sends a request again at once, a few times, if it is certain that no
//! application has seen it; that needs no policy, as it cannot do harm.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};

/// Conditions and bounds of retries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often a request is sent again at most.
    pub attempts: u32,
    /// For the head of the response.
    pub per_try_timeout: Option<Duration>,
    pub statuses: Vec<u16>,
    /// All statuses from 500 to 599.
    pub server_errors: bool,
    pub grpc_statuses: Vec<u16>,
    pub resets: bool,
    /// Methods that are not idempotent, too.
    pub non_idempotent: bool,
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    pub budget: Budget,
}

/// What a try came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response; with its gRPC status if that came with the head.
    Answered(StatusCode, Option<u16>),
    /// The connection broke before there was an answer.
    Reset,
    /// The per-try time-out passed.
    TimedOut,
}

impl Retry {
    pub const DEFAULT_BACKOFF_BASE: Duration = Duration::from_millis(25);

    /// Whether a request with this method may ever be sent again, so that it has to be kept.
    pub fn concerns(&self, method: &Method, grpc: bool) -> bool {
        self.non_idempotent || method.is_idempotent() || (grpc && !self.grpc_statuses.is_empty())
    }

    /// Whether a request with this method is to be sent again after this outcome.
    pub fn wants(&self, outcome: Outcome, method: &Method) -> bool {
        let harmless = self.non_idempotent || method.is_idempotent();
        match outcome {
            Outcome::Answered(_, Some(status)) if self.grpc_statuses.contains(&status) => true,
            Outcome::Answered(status, _) => {
                let named =
                    self.statuses.contains(&status.as_u16()) || (self.server_errors && status.is_server_error());
                harmless && named
            }
            Outcome::Reset => harmless && self.resets,
            Outcome::TimedOut => harmless,
        }
    }

    /// How long to wait before the retry after `retries` others: a random time up to a bound that doubles each time, so that
    /// those who failed together do not come back together. `draw` is uniform over all of `u32`.
    pub fn backoff(&self, retries: u32, draw: u32) -> Duration {
        let bound = self.backoff_base.saturating_mul(2u32.saturating_pow(retries)).min(self.backoff_max);
        bound.mul_f64(f64::from(draw) / f64::from(u32::MAX))
    }
}

/// How many retries may be under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of the requests under way.
    pub percent: u32,
    /// So many in any case.
    pub least: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { percent: 20, least: 3 }
    }
}

impl Budget {
    /// The most retries while `active` requests are under way.
    pub fn most(&self, active: u32) -> u32 {
        let share = u64::from(active) * u64::from(self.percent) / 100;
        self.least.max(share as u32)
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The gRPC status of a response that has it in its head, as those without messages do ("Trailers-Only").
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// The deadline that a gRPC call has set itself: up to eight digits and a unit.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let digits = Some(digits).filter(|digits| digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn retry() -> Retry {
        Retry {
            attempts: 2,
            per_try_timeout: None,
            statuses: vec![429],
            server_errors: true,
            grpc_statuses: vec![14],
            resets: true,
            non_idempotent: false,
            backoff_base: Duration::from_millis(10),
            backoff_max: Duration::from_millis(50),
            budget: Budget::default(),
        }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered(StatusCode::from_u16(status).unwrap(), None)
    }

    #[test]
    fn what_could_be_done_twice_is_not_sent_again_unless_that_is_said() {
        let careful = retry();
        let bold = Retry { non_idempotent: true, ..retry() };
        for outcome in [answered(503), answered(429), Outcome::Reset, Outcome::TimedOut] {
            assert!(careful.wants(outcome, &Method::GET) && careful.wants(outcome, &Method::PUT), "{outcome:?}");
            assert!(!careful.wants(outcome, &Method::POST) && bold.wants(outcome, &Method::POST), "{outcome:?}");
        }
        for outcome in [answered(200), answered(404), Outcome::Answered(StatusCode::OK, Some(0))] {
            assert!(!bold.wants(outcome, &Method::GET), "{outcome:?}");
        }
        let unavailable = Outcome::Answered(StatusCode::OK, Some(14));
        assert!(careful.wants(unavailable, &Method::POST) && careful.concerns(&Method::POST, true));
        assert!(!careful.concerns(&Method::POST, false) && bold.concerns(&Method::POST, false));
    }

    #[test]
    fn deadlines_of_grpc_are_read() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&headers)
        };
        assert_eq!(of("100m"), Some(Duration::from_millis(100)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        for bad in ["", "m", "100", "1x", "-1S", "123456789S", "1.5S"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn it_waits_longer_each_time_and_never_too_long(retries in 0u32..80, draw in any::<u32>()) {
            let retry = retry();
            let waits = retry.backoff(retries, draw);
            prop_assert!(waits <= retry.backoff_max && waits <= retry.backoff_base.saturating_mul(1u32.checked_shl(retries).unwrap_or(u32::MAX)));
            prop_assert!(waits <= retry.backoff(retries + 1, draw));
        }

        #[test]
        fn a_budget_is_a_share_and_never_less_than_its_minimum(percent in 0u32..=100, least in 0u32..10, active in any::<u32>()) {
            let most = Budget { percent, least }.most(active);
            prop_assert!(most >= least);
            prop_assert!(u64::from(most) <= u64::from(least).max(u64::from(active) * u64::from(percent) / 100));
        }
    }
}
