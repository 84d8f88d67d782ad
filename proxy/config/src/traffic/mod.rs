//! How traffic to a service is handled once it is decided where it goes: which endpoint, how often, how long.
//!
//! What is here is plain data and arithmetic. What changes from request to request (loads, latencies, who is ejected)
//! is kept by the data path, and comes in as arguments, as the time and random draws do.

pub mod breaker;
pub mod candidates;
mod display;
pub mod hash;
pub mod health;
mod limits;
pub mod outliers;
pub(crate) mod parse;
pub mod retry;
mod schedule;
pub mod session;
pub mod slow_start;
mod zones;

use std::time::Duration;

use http::HeaderName;

pub use breaker::CircuitBreaker;
pub use candidates::{Candidates, Member};
pub use hash::{Ring, hash};
pub use health::HealthCheck;
pub use limits::Limits;
pub use outliers::{Feedback, Outliers};
pub use retry::{Budget, Outcome, Retry};
pub use session::{NewSession, SessionCookie};
pub use slow_start::SlowStart;
pub use zones::Zones;

/// How traffic to one service, or one port of it, is handled. The default is what holds where nobody said anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// `ns/name` or `ns/name:port`; empty: nobody said anything.
    pub name: String,
    pub balancing: Balancing,
    /// None: a request is sent again only if that is certain to do no harm.
    pub retry: Option<Retry>,
    /// For a request and its whole response.
    pub request_timeout: Option<Duration>,
    pub outliers: Option<Outliers>,
    pub limits: Limits,
    pub health_check: Option<HealthCheck>,
    pub circuit_breaker: Option<CircuitBreaker>,
}

impl TrafficPolicy {
    /// For a proxy in `zone`.
    pub(crate) fn in_zone(mut self, zone: &str) -> Self {
        if let Some(zones) = &mut self.balancing.zones {
            zones.own = zone.to_owned();
        }
        self
    }

    /// Whether an endpoint's share can change while its configuration does not.
    pub fn shares_change(&self) -> bool {
        self.balancing.slow_start.is_some() || self.outliers.is_some() || self.health_check.is_some()
    }
}

/// Which endpoint gets the next request.
#[derive(Clone, Debug, PartialEq)]
pub struct Balancing {
    pub algorithm: Algorithm,
    pub slow_start: Option<SlowStart>,
    pub zones: Option<Zones>,
    /// When fewer than this percentage of the endpoints are healthy, all are used. 0: never.
    pub panic_threshold_percent: u32,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::LeastRequest,
            slow_start: None,
            zones: None,
            panic_threshold_percent: Self::DEFAULT_PANIC_THRESHOLD_PERCENT,
        }
    }
}

impl Balancing {
    pub const DEFAULT_PANIC_THRESHOLD_PERCENT: u32 = 50;
    pub const DEFAULT_LATENCY_DECAY: Duration = Duration::from_secs(10);
}

/// How one of several usable endpoints is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Of two at random, the one with less under way.
    LeastRequest,
    /// Of two at random, the one with less under way times its latency, a moving average that follows peaks at once
    /// and has 37 % of them left after `decay`.
    PeakEwma { decay: Duration },
    /// In turn, as often as the weights say.
    RoundRobin,
    /// The same key to the same endpoint. The first key that a request has counts; without any its session does; without both it is
    /// `LeastRequest`.
    ConsistentHash { keys: Vec<HashKey>, session: Option<SessionCookie> },
}

impl Algorithm {
    /// The word used in dumps.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::LeastRequest => "least_request",
            Self::PeakEwma { .. } => "peak_ewma",
            Self::RoundRobin => "round_robin",
            Self::ConsistentHash { .. } => "consistent_hash",
        }
    }
}

/// What of a request says where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    Header(HeaderName),
    Cookie(String),
    /// The only one that opaque connections have.
    SourceAddress,
    Path,
    QueryParameter(String),
}
