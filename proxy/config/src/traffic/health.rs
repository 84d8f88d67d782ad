//! Active health checks: what is asked, and when the answers make an endpoint unhealthy.

use std::time::Duration;

use http::StatusCode;

/// How the health of endpoints is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    /// Failures in a row after which an endpoint is unhealthy.
    pub unhealthy_after: u32,
    /// Successes in a row after which it is healthy again.
    pub healthy_after: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// GET; well if the status is one of these, or if there are none, from 200 to 299.
    Http { path: String, host: String, statuses: Vec<u16> },
    /// `grpc.health.v1.Health/Check` of a service; empty: of the whole server.
    Grpc { service: String },
    /// A connection.
    Tcp,
}

impl Probe {
    /// Whether an HTTP answer with this status is good.
    pub fn accepts(status: StatusCode, statuses: &[u16]) -> bool {
        if statuses.is_empty() { status.is_success() } else { statuses.contains(&status.as_u16()) }
    }
}

/// What the checks of one endpoint say. It is healthy until they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    unhealthy: bool,
    /// Results in a row that contradict this.
    contrary: u32,
}

impl Health {
    pub fn is_healthy(self) -> bool {
        !self.unhealthy
    }

    /// Takes in a result. True: this changes what it is.
    pub fn note(&mut self, check: &HealthCheck, well: bool) -> bool {
        if well == self.is_healthy() {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let needed = if well { check.healthy_after } else { check.unhealthy_after };
        let changes = self.contrary >= needed;
        if changes {
            *self = Self { unhealthy: !well, contrary: 0 };
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_results_in_a_row_change_what_an_endpoint_is() {
        let check = HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        };
        let mut health = Health::default();
        let results = [false, false, true, false, false, false, true, false, true, true, false];
        let healthy = results.map(|well| {
            let before = health.is_healthy();
            assert_eq!(health.note(&check, well), before != health.is_healthy());
            health.is_healthy()
        });
        assert_eq!(healthy, [true, true, true, true, true, false, false, false, false, true, true]);
    }

    #[test]
    fn statuses_are_those_that_are_named_or_success() {
        assert!(Probe::accepts(StatusCode::NO_CONTENT, &[]) && !Probe::accepts(StatusCode::FOUND, &[]));
        assert!(Probe::accepts(StatusCode::FOUND, &[302]) && !Probe::accepts(StatusCode::OK, &[302]));
    }
}
