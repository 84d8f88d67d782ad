//! How long to wait before a container is started again. Pure.

use std::time::Duration;

const LONGEST: Duration = Duration::from_secs(300);
/// A container that has run for so long begins again without delay.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// The delays of one container: none before the first restart, then the first one, twice as much, … up to 5 minutes.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(first: Duration) -> Self {
        Self { first: first.min(LONGEST), next: Duration::ZERO }
    }

    /// The delay after a run that lasted `ran`.
    pub fn after(&mut self, ran: Duration) -> Duration {
        if ran >= FORGIVEN_AFTER {
            self.next = Duration::ZERO;
        }
        let delay = self.next;
        self.next = if delay.is_zero() { self.first } else { (delay * 2).min(LONGEST) };
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_five_minutes_and_a_long_run_forgives() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let delays: Vec<u64> = (0..12).map(|_| backoff.after(Duration::ZERO).as_secs()).collect();
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff.after(Duration::from_secs(601)), Duration::ZERO);
    }
}
