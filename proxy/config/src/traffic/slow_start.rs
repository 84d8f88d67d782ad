//! Slow start: an endpoint that is new gets its share little by little, so that caches and compilers warm up.

use std::time::Duration;

/// How fast the share of a new endpoint grows.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    /// The share at first, of 1.
    pub least: f64,
    /// 1: evenly; above, faster at first.
    pub aggression: f64,
}

impl SlowStart {
    /// The part of its weight that an endpoint of this age has, from `least` to 1.
    pub fn part(&self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        let passed = age.as_secs_f64() / self.window.as_secs_f64();
        passed.powf(1.0 / self.aggression).clamp(self.least, 1.0)
    }

    /// How long a computed part may be used: a fiftieth of the window, so that no step is felt.
    pub fn step(&self) -> Duration {
        (self.window / 50).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_share_grows_from_the_least_to_all(
            window_ms in 1u64..100_000,
            least in 0.01f64..=1.0,
            aggression in 0.1f64..10.0,
            ages in any::<[u16; 2]>(),
        ) {
            let window = Duration::from_millis(window_ms);
            let slow = SlowStart { window, least, aggression };
            let at = |age: u16| slow.part(window.mul_f64(f64::from(age) / f64::from(u16::MAX)));
            prop_assert!(at(0) == least);
            prop_assert_eq!(slow.part(window), 1.0);
            prop_assert!(at(ages[0].min(ages[1])) <= at(ages[0].max(ages[1])));
            prop_assert!(at(ages[0]) >= least && at(ages[0]) <= 1.0);
        }
    }

    #[test]
    fn aggression_makes_it_faster_at_first() {
        let slow = |aggression| SlowStart { window: Duration::from_secs(100), least: 0.1, aggression };
        assert_eq!(slow(1.0).part(Duration::from_secs(25)), 0.25);
        assert_eq!(slow(2.0).part(Duration::from_secs(25)), 0.5);
        assert_eq!(slow(1.0).part(Duration::from_secs(1)), 0.1);
    }
}
