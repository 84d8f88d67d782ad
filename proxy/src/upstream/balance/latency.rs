//! How long an endpoint takes to answer: a moving average that follows peaks at once ("peak EWMA").

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A latency in milliseconds, as the upper half the bits of an `f32`, and when it was taken, as the lower half. 0: none yet.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// Takes a measure in: a longer one at once, a shorter one as far as the time since the last one has made that fade.
    pub fn observe(&self, measured: Duration, now: u64, decay: Duration) {
        let measured = measured.as_secs_f32() * 1000.0;
        let taken = |packed| {
            let (before, at) = unpack(packed);
            let left = left(at, now, decay);
            let next =
                if packed == 0 || measured > before { measured } else { before * left + measured * (1.0 - left) };
            Some(pack(next, now))
        };
        // Never refused: the closure always gives a value.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
    }

    /// In milliseconds; none before the first measure. Without new measures it goes down, so that an endpoint that was slow is
    /// tried again.
    pub fn get(&self, now: u64, decay: Duration) -> Option<f32> {
        let packed = self.0.load(Ordering::Relaxed);
        let (latency, at) = unpack(packed);
        (packed != 0).then(|| latency * left(at, now, decay))
    }

    /// The last value, whatever its age.
    pub fn last(&self) -> Option<f32> {
        let packed = self.0.load(Ordering::Relaxed);
        (packed != 0).then(|| unpack(packed).0)
    }
}

fn pack(latency: f32, now: u64) -> u64 {
    // Not 0, which means none.
    (u64::from(latency.max(f32::MIN_POSITIVE).to_bits()) << 32) | u64::from(now as u32)
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

/// What is left of a value taken `at`.
fn left(at: u32, now: u64, decay: Duration) -> f32 {
    // The half of a clock goes round in 49 days; one that another thread read a little earlier is no time ago.
    let passed = (now as u32).wrapping_sub(at);
    let passed = if passed > u32::MAX / 2 { 0 } else { passed };
    (-(passed as f32) / (decay.as_secs_f32() * 1000.0)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(1);

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let latency = Latency::default();
        assert_eq!(latency.get(5, DECAY), None);
        latency.observe(ms(10), 1000, DECAY);
        latency.observe(ms(500), 1000, DECAY);
        assert_eq!(latency.get(1000, DECAY), Some(500.0));
        assert!((latency.get(2000, DECAY).unwrap() - 500.0 / std::f32::consts::E).abs() < 0.1);
        latency.observe(ms(10), 2000, DECAY);
        let expected = 10.0 + 490.0 / std::f32::consts::E;
        assert!((latency.get(2000, DECAY).unwrap() - expected).abs() < 0.1);
        latency.observe(ms(10), 60_000, DECAY);
        assert!((latency.get(60_000, DECAY).unwrap() - 10.0).abs() < 0.1);
    }

    #[test]
    fn a_clock_that_goes_round_or_is_a_little_behind_does_no_harm() {
        let latency = Latency::default();
        let round = u64::from(u32::MAX);
        latency.observe(ms(100), round - 5, DECAY);
        assert!(latency.get(round + 5, DECAY).unwrap() > 98.0);
        assert_eq!(latency.get(round - 8, DECAY), Some(100.0));
        let none = Latency::default();
        none.observe(Duration::ZERO, 0, DECAY);
        assert!(none.get(0, DECAY).is_some());
    }
}
