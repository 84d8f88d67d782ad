//! Policies as a sentence, for explanations.

use std::fmt;

use super::{Algorithm, TrafficPolicy};

impl fmt::Display for TrafficPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "balanced by {}", self.balancing.algorithm.as_str())?;
        if let Algorithm::ConsistentHash { session: Some(session), .. } = &self.balancing.algorithm {
            write!(f, " and sessions by the cookie {}", session.name)?;
        }
        if self.balancing.zones.is_some() {
            f.write_str(", the own zone first")?;
        }
        if self.balancing.slow_start.is_some() {
            f.write_str(", new endpoints slowly")?;
        }
        if let Some(retry) = &self.retry {
            write!(f, "; sent again up to {} times", retry.attempts)?;
        }
        if let Some(time) = self.request_timeout {
            write!(f, "; {} ms for a request", time.as_millis())?;
        }
        if self.outliers.is_some() {
            f.write_str("; outliers are ejected")?;
        }
        if self.health_check.is_some() {
            f.write_str("; health is checked")?;
        }
        if let Some(breaker) = &self.circuit_breaker {
            write!(f, "; left alone for {} ms when too many fail or are slow", breaker.degraded.as_millis())?;
        }
        let limits = [
            (self.limits.requests, "requests"),
            (self.limits.retries, "retries"),
            (self.limits.connections, "connections"),
            (self.limits.pending, "requests that wait for a connection"),
        ];
        for (limit, what) in limits.into_iter().filter_map(|(limit, what)| Some((limit?, what))) {
            write!(f, "; at most {limit} {what} at once")?;
        }
        Ok(())
    }
}
