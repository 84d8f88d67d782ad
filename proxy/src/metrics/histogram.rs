//! How often a duration falls into which range.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the ranges, in milliseconds; the last range has none. FSM's own.
pub const BOUNDS_MS: [u64; 19] =
    [1, 2, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct Histogram {
    ranges: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let range = BOUNDS_MS.partition_point(|bound| bound * 1000 < us);
        self.ranges[range].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// For each bound (none: no bound), how many durations were at most that long.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let bounds = BOUNDS_MS.iter().copied().map(Some).chain([None]);
        bounds.zip(&self.ranges).scan(0, |sum, (bound, range)| {
            *sum += range.load(Ordering::Relaxed);
            Some((bound, *sum))
        })
    }

    /// The sum of all durations, in milliseconds.
    pub fn sum_ms(&self) -> f64 {
        self.sum_us.load(Ordering::Relaxed) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_for_every_bound_that_it_does_not_pass() {
        let histogram = Histogram::default();
        for us in [1000, 1001, 700_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let counts: Vec<u64> = histogram.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts[..3], [1, 2, 2]);
        assert_eq!(counts[BOUNDS_MS.len() - 1..], [2, 3]);
        assert_eq!(histogram.sum_ms(), 700_002.001);
    }
}
