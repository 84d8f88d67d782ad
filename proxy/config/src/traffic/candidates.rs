//! Which endpoints of a pool may be taken, with what weight, and the draw between them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Algorithm, Balancing, schedule};

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Member<'a> {
    pub weight: u32,
    pub zone: &'a str,
    /// Neither ejected nor failing its health checks.
    pub healthy: bool,
    /// How long it has been there, if that matters yet.
    pub age: Option<Duration>,
}

/// The endpoints that may be taken, by index.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidates {
    usable: Box<[bool]>,
    groups: Box<[Group]>,
    /// So few are healthy that all are used.
    pub panics: bool,
}

/// Candidates that are drawn from together: all of them, or those of one zone.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    /// Its part of the traffic, and those of the groups before it.
    up_to: f64,
    members: Box<[u32]>,
    /// None: all the same.
    weights: Option<Weights>,
    /// Round robin only.
    round: Box<[u32]>,
}

#[derive(Clone, Debug, PartialEq)]
struct Weights {
    each: Box<[f64]>,
    /// With those before it.
    up_to: Box<[f64]>,
}

/// `draw`, uniform over all of `u32`, as a number from 0 to below `most`.
fn below(most: usize, draw: u32) -> usize {
    ((u64::from(draw) * most as u64) >> 32) as usize
}

/// Two different ones of `most`, or twice the only one.
pub fn two_of(most: usize, draws: [u32; 2]) -> Option<[usize; 2]> {
    match most {
        0 => None,
        1 => Some([0, 0]),
        _ => {
            let first = below(most, draws[0]);
            Some([first, (first + 1 + below(most - 1, draws[1])) % most])
        }
    }
}

impl Candidates {
    /// From what is known of all endpoints of a pool.
    pub fn new(balancing: &Balancing, members: &[Member<'_>]) -> Self {
        let healthy = members.iter().filter(|member| member.healthy).count();
        let panics = healthy * 100 < balancing.panic_threshold_percent as usize * members.len();
        let usable: Box<[bool]> = members.iter().map(|member| member.healthy || panics).collect();
        let weight = |(member, usable): (&Member<'_>, &bool)| match balancing.slow_start.as_ref().zip(member.age) {
            _ if !usable => 0.0,
            Some((slow_start, age)) => f64::from(member.weight) * slow_start.part(age),
            None => f64::from(member.weight),
        };
        let mut weights: Vec<f64> = members.iter().zip(&usable).map(weight).collect();
        if weights.iter().all(|weight| *weight == 0.0) {
            weights = usable.iter().map(|usable| f64::from(u8::from(*usable))).collect();
        }
        let everywhere = [("", 1.0)];
        let mut capacity: BTreeMap<&str, f64> = BTreeMap::new();
        for (member, weight) in members.iter().zip(&weights) {
            *capacity.entry(member.zone).or_default() += weight;
        }
        let parts = balancing.zones.as_ref().filter(|_| !panics).and_then(|zones| zones.parts(&capacity));
        let in_zone = |zone: &str, member: usize| parts.is_none() || members[member].zone == zone;
        let mut up_to = 0.0;
        let mut groups = Vec::new();
        for (zone, part) in parts.as_deref().unwrap_or(&everywhere) {
            let taken = (0..members.len()).filter(|index| weights[*index] > 0.0 && in_zone(zone, *index));
            let (members, weights): (Vec<u32>, Vec<f64>) = taken.map(|index| (index as u32, weights[index])).unzip();
            if !members.is_empty() {
                up_to += part;
                groups.push(Group::new(&balancing.algorithm, up_to, members, &weights));
            }
        }
        Self { usable, groups: groups.into(), panics }
    }

    /// Whether the endpoint may be taken at all.
    pub fn is_usable(&self, index: usize) -> bool {
        self.usable[index]
    }

    /// Whether some are preferred for their zone.
    pub fn has_zones(&self) -> bool {
        self.groups.len() > 1
    }

    /// Of two at random, the one that has less `load` for its weight: that of the first in comparison with the second.
    /// The draws are uniform over all of `u32`.
    pub fn less_loaded(&self, draws: [u32; 3], load: impl Fn(usize, usize) -> f64) -> Option<usize> {
        let group = self.group(draws[0])?;
        let first = group.draw(draws[1]);
        if group.members.len() == 1 {
            return Some(group.members[first] as usize);
        }
        let second = group.draw_other(first, draws[2]);
        let [one, other] = [first, second].map(|at| group.members[at] as usize);
        let (mut of_one, mut of_other) = (load(one, other), load(other, one));
        if let Some(weights) = &group.weights {
            of_one /= weights.each[first];
            of_other /= weights.each[second];
        }
        Some(if of_other < of_one { other } else { one })
    }

    /// The one whose `turn` it is, in round robin.
    pub fn in_turn(&self, draw: u32, turn: u32) -> Option<usize> {
        let group = self.group(draw)?;
        Some(group.members[group.round[turn as usize % group.round.len()] as usize] as usize)
    }

    fn group(&self, draw: u32) -> Option<&Group> {
        let (last, others) = self.groups.split_last()?;
        let point = f64::from(draw) / (f64::from(u32::MAX) + 1.0) * last.up_to;
        Some(others.iter().find(|group| point < group.up_to).unwrap_or(last))
    }
}

impl Group {
    fn new(algorithm: &Algorithm, up_to: f64, members: Vec<u32>, weights: &[f64]) -> Self {
        let round = if *algorithm == Algorithm::RoundRobin { schedule::round(weights) } else { Box::default() };
        let differ = weights.iter().any(|weight| *weight != weights[0]);
        let sum = |sum: &mut f64, weight: &f64| {
            *sum += weight;
            Some(*sum)
        };
        let weights = differ.then(|| Weights { each: weights.into(), up_to: weights.iter().scan(0.0, sum).collect() });
        Self { up_to, members: members.into(), weights, round }
    }

    /// The place of a member, by weight.
    fn draw(&self, draw: u32) -> usize {
        match &self.weights {
            None => below(self.members.len(), draw),
            Some(weights) => weights.at(weights.total() * f64::from(draw) / (f64::from(u32::MAX) + 1.0)),
        }
    }

    /// The place of another member than `first`, by weight. There are at least two.
    fn draw_other(&self, first: usize, draw: u32) -> usize {
        let Some(weights) = &self.weights else {
            return (first + 1 + below(self.members.len() - 1, draw)) % self.members.len();
        };
        let left = weights.total() - weights.each[first];
        let mut point = left * f64::from(draw) / (f64::from(u32::MAX) + 1.0);
        if point >= weights.up_to[first] - weights.each[first] {
            point += weights.each[first];
        }
        match weights.at(point) {
            // An error of rounding.
            at if at == first => (first + 1) % self.members.len(),
            at => at,
        }
    }
}

impl Weights {
    fn total(&self) -> f64 {
        self.up_to[self.up_to.len() - 1]
    }

    fn at(&self, point: f64) -> usize {
        self.up_to.partition_point(|up_to| *up_to <= point).min(self.up_to.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{SlowStart, Zones};
    use super::*;

    fn member(weight: u32, healthy: bool) -> Member<'static> {
        Member { weight, zone: "", healthy, age: None }
    }

    fn balancing(algorithm: Algorithm) -> Balancing {
        Balancing { algorithm, ..Balancing::default() }
    }

    /// How often each is drawn, in parts of 1, when nothing is loaded.
    fn shares(candidates: &Candidates, members: usize) -> Vec<f64> {
        const ROUNDS: u32 = 20_000;
        let mut counts = vec![0.0; members];
        for round in 0..ROUNDS {
            let draw =
                |salt: u32| (crate::traffic::hash(&[round.to_be_bytes(), salt.to_be_bytes()].concat()) >> 32) as u32;
            counts[candidates.less_loaded([draw(0), draw(1), draw(2)], |_, _| 0.0).unwrap()] += 1.0 / f64::from(ROUNDS);
        }
        counts
    }

    proptest! {
        #[test]
        fn what_is_taken_is_healthy_or_there_is_panic(
            healthy in proptest::collection::vec(any::<bool>(), 1..12),
            threshold in 0u32..=100,
            round_robin in any::<bool>(),
            draws in any::<[u32; 3]>(),
        ) {
            let algorithm = if round_robin { Algorithm::RoundRobin } else { Algorithm::LeastRequest };
            let balancing = Balancing { panic_threshold_percent: threshold, ..balancing(algorithm) };
            let members: Vec<_> = healthy.iter().map(|healthy| member(1, *healthy)).collect();
            let candidates = Candidates::new(&balancing, &members);
            let well = healthy.iter().filter(|one| **one).count();
            prop_assert_eq!(candidates.panics, well * 100 < threshold as usize * healthy.len());
            let taken = match round_robin {
                true => candidates.in_turn(draws[0], draws[1]),
                false => candidates.less_loaded(draws, |_, _| 0.0),
            };
            prop_assert_eq!(taken.is_none(), well == 0 && threshold == 0);
            if let Some(index) = taken {
                prop_assert!(candidates.panics || healthy[index]);
            }
            for (index, healthy) in healthy.iter().enumerate() {
                prop_assert_eq!(candidates.is_usable(index), *healthy || candidates.panics);
            }
        }

        #[test]
        fn two_different_ones_are_compared(weights in proptest::collection::vec(1u32..9, 2..9), draws in any::<[u32; 3]>()) {
            let members: Vec<_> = weights.iter().map(|weight| member(*weight, true)).collect();
            let candidates = Candidates::new(&Balancing::default(), &members);
            let first = candidates.less_loaded(draws, |_, _| 0.0).unwrap();
            let other = candidates.less_loaded(draws, |index, _| f64::from(u8::from(index == first))).unwrap();
            prop_assert_ne!(first, other);
        }

        #[test]
        fn in_turn_every_one_comes(count in 1usize..20, start in any::<u32>()) {
            let members = vec![member(7, true); count];
            let candidates = Candidates::new(&balancing(Algorithm::RoundRobin), &members);
            let start = start / 2;
            let mut taken: Vec<_> = (0..count as u32).map(|turn| candidates.in_turn(0, start + turn).unwrap()).collect();
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn draws_are_as_the_weights() {
        let members = [member(1, true), member(3, true), member(0, true), member(4, true), member(9, false)];
        for (share, fair) in
            shares(&Candidates::new(&Balancing::default(), &members), 5).iter().zip([0.125, 0.375, 0.0, 0.5, 0.0])
        {
            assert!((share - fair).abs() < 0.02, "{share} instead of {fair}");
        }
        // All with weight 0: they are all that there is.
        let shares = shares(&Candidates::new(&Balancing::default(), &[member(0, true), member(0, true)]), 2);
        assert!((shares[0] - 0.5).abs() < 0.02, "{shares:?}");
    }

    #[test]
    fn a_load_counts_for_the_weight() {
        let candidates = Candidates::new(&Balancing::default(), &[member(1, true), member(4, true)]);
        for draw in [0, u32::MAX / 2, u32::MAX] {
            assert_eq!(candidates.less_loaded([draw, draw, 0], |index, _| [2.0, 7.0][index]), Some(1));
            assert_eq!(candidates.less_loaded([draw, draw, 0], |index, _| [2.0, 9.0][index]), Some(0));
        }
    }

    #[test]
    fn a_new_one_gets_less() {
        let slow_start = SlowStart { window: Duration::from_secs(10), least: 0.1, aggression: 1.0 };
        let balancing = Balancing { slow_start: Some(slow_start), ..Balancing::default() };
        let new = |age| Member { age: Some(Duration::from_secs(age)), ..member(1, true) };
        for (age, fair) in [(0, 0.1 / 1.1), (5, 0.5 / 1.5), (10, 0.5), (99, 0.5)] {
            let shares = shares(&Candidates::new(&balancing, &[new(age), member(1, true)]), 2);
            assert!((shares[0] - fair).abs() < 0.02, "at {age} s it gets {} instead of {fair}", shares[0]);
        }
    }

    #[test]
    fn the_own_zone_keeps_what_it_has_room_for() {
        let zones = Zones { own: "a".to_owned(), clients: BTreeMap::new() };
        let balancing = Balancing { zones: Some(zones), ..Balancing::default() };
        let zoned = |zone, healthy| Member { zone, ..member(1, healthy) };
        let members = [zoned("a", true), zoned("b", true), zoned("b", true), zoned("b", true)];
        let drawn = shares(&Candidates::new(&balancing, &members), 4);
        assert!((drawn[0] - 0.5).abs() < 0.02, "{drawn:?}");
        let members = [zoned("a", true), zoned("a", true), zoned("b", true), zoned("b", true)];
        assert_eq!(shares(&Candidates::new(&balancing, &members), 4)[2..], [0.0, 0.0]);
        // Nothing healthy at home.
        let members = [zoned("a", false), zoned("b", true), zoned("b", true)];
        assert_eq!(shares(&Candidates::new(&balancing, &members), 3)[0], 0.0);
    }
}
