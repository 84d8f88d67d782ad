//! How many replicas the ReplicaSets of a Deployment should have next. Pure.
//!
//! The rules are those of Kubernetes' rolling update: never more than `desired + max_surge` pods, never fewer than
//! `desired - max_unavailable` available ones, unhealthy old pods go first.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// One ReplicaSet's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Set {
    /// What it is asked to have.
    pub wanted: i32,
    /// What it has and serves.
    pub available: i32,
}

/// The allowance of a rolling update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub desired: i32,
    pub max_surge: i32,
    pub max_unavailable: i32,
}

impl Limits {
    /// Resolves percentages: surge rounds up, unavailable down; if both come out as zero, one may be unavailable.
    pub fn new(desired: i32, surge: Option<&IntOrString>, unavailable: Option<&IntOrString>) -> Result<Self, String> {
        let quarter = IntOrString::String("25%".into());
        let max_surge = resolve(surge.unwrap_or(&quarter), desired, true)?;
        let max_unavailable = resolve(unavailable.unwrap_or(&quarter), desired, false)?;
        let max_unavailable = if max_surge == 0 && max_unavailable == 0 { 1 } else { max_unavailable };
        Ok(Self { desired, max_surge, max_unavailable: max_unavailable.min(desired) })
    }
}

fn resolve(value: &IntOrString, of: i32, round_up: bool) -> Result<i32, String> {
    match value {
        IntOrString::Int(n) if *n >= 0 => Ok(*n),
        IntOrString::Int(n) => Err(format!("{n} is negative")),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|p| p.parse::<i64>().ok()).filter(|p| *p >= 0);
            let percent = percent.ok_or_else(|| format!("\"{text}\" is neither a number nor a percentage"))?;
            let exact = percent * i64::from(of);
            let result = if round_up { (exact + 99) / 100 } else { exact / 100 };
            i32::try_from(result).map_err(|_| format!("\"{text}\" is too large"))
        }
    }
}

/// The replicas to ask for next: of the new set, and of each old one (oldest first).
pub(super) fn next(limits: Limits, new: Set, old: &[Set]) -> (i32, Vec<i32>) {
    let old_wanted: i32 = old.iter().map(|s| s.wanted).sum();
    if old_wanted == 0 || new.wanted > limits.desired {
        return (limits.desired, old.iter().map(|s| s.wanted).collect());
    }
    let room = (limits.desired + limits.max_surge - old_wanted - new.wanted).max(0);
    let grown = new.wanted + room.min(limits.desired - new.wanted);

    let min_available = limits.desired - limits.max_unavailable;
    let new_unavailable = new.wanted - new.available.min(new.wanted);
    let mut removable = (old_wanted + new.wanted - min_available - new_unavailable).max(0);
    let mut wanted: Vec<i32> = old.iter().map(|s| s.wanted).collect();
    for (set, wanted) in old.iter().zip(&mut wanted) {
        let unhealthy = (set.wanted - set.available).clamp(0, removable);
        *wanted -= unhealthy;
        removable -= unhealthy;
    }
    let old_available: i32 = old.iter().map(|s| s.available.min(s.wanted)).sum();
    let mut spare = (old_available + new.available - min_available).clamp(0, removable);
    for wanted in &mut wanted {
        let less = spare.min(*wanted);
        *wanted -= less;
        spare -= less;
    }
    (grown, wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(desired: i32, surge: &str, unavailable: &str) -> Limits {
        let value = |text: &str| text.parse().map_or_else(|_| IntOrString::String(text.into()), IntOrString::Int);
        Limits::new(desired, Some(&value(surge)), Some(&value(unavailable))).unwrap()
    }

    #[test]
    fn percentages_round_as_kubernetes_does() {
        let shown = |l: Limits| (l.max_surge, l.max_unavailable);
        assert_eq!(shown(limits(3, "25%", "25%")), (1, 0));
        assert_eq!(shown(limits(10, "25%", "25%")), (3, 2));
        assert_eq!(shown(limits(3, "0", "0")), (0, 1));
        assert!(Limits::new(3, Some(&IntOrString::String("many".into())), None).is_err());
    }

    #[test]
    fn a_rollout_surges_first_and_then_follows_availability() {
        let limits = limits(3, "1", "0");
        let old = Set { wanted: 3, available: 3 };
        assert_eq!(next(limits, Set::default(), &[old]), (1, vec![3]));
        assert_eq!(next(limits, Set { wanted: 1, available: 0 }, &[old]), (1, vec![3]));
        assert_eq!(next(limits, Set { wanted: 1, available: 1 }, &[old]), (1, vec![2]));
        assert_eq!(next(limits, Set { wanted: 3, available: 3 }, &[Set { wanted: 1, available: 1 }]), (3, vec![0]));
    }

    #[test]
    fn unhealthy_old_pods_go_first() {
        let sets = [Set { wanted: 1, available: 0 }, Set { wanted: 2, available: 2 }];
        assert_eq!(next(limits(3, "1", "1"), Set { wanted: 1, available: 1 }, &sets), (1, vec![0, 1]));
    }

    proptest! {
        /// Pods become available as asked; whatever the sizes, the limits hold at every step and the rollout ends.
        #[test]
        fn every_rollout_keeps_its_limits_and_ends(
            desired in 0..12_i32, surge in 0..4_i32, unavailable in 0..4_i32, old_now in 0..12_i32
        ) {
            let limits = Limits::new(desired, Some(&IntOrString::Int(surge)), Some(&IntOrString::Int(unavailable))).unwrap();
            let old_now = old_now.min(desired);
            let (mut new, mut old) = (Set::default(), Set { wanted: old_now, available: old_now });
            for _ in 0..100 {
                let (new_wanted, old_wanted) = next(limits, new, &[old]);
                prop_assert!(new_wanted + old_wanted[0] <= desired + limits.max_surge);
                let lost = old.available - old_wanted[0];
                prop_assert!(lost <= 0 || new.available + old_wanted[0] >= desired - limits.max_unavailable);
                new.wanted = new_wanted;
                old = Set { wanted: old_wanted[0], available: old.available.min(old_wanted[0]) };
                new.available = (new.available + 1).min(new.wanted);
            }
            prop_assert_eq!((new.wanted, old.wanted), (desired, 0));
        }
    }
}
