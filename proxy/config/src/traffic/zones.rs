//! Zone preference: a proxy's own zone first, without sending more to any zone than its endpoints' fair share.
//!
//! The share of the clients that are in a zone says how much is asked for there; the share of the endpoints' weight, how
//! much it can take. Where a zone has room for its own clients they stay in it. Where it has not, what is too much goes to the
//! zones with room left, in proportion to that room. So when every proxy does this, no zone gets more than its endpoints
//! would get without any preference.

use std::collections::BTreeMap;

/// Zones, as a service's policy says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Zones {
    /// The zone of the proxy; empty: unknown, and nothing is preferred.
    pub own: String,
    /// Clients of the service by zone; empty: as many in each.
    pub clients: BTreeMap<String, u32>,
}

impl Zones {
    /// The part of this proxy's traffic that goes to each zone, by the weight of the endpoints there. The parts sum to 1.
    /// None: it is spread over all endpoints alike, whatever their zone is.
    pub fn parts<'z>(&self, capacity: &BTreeMap<&'z str, f64>) -> Option<Vec<(&'z str, f64)>> {
        let total: f64 = capacity.values().sum();
        let asked = self.asked(capacity);
        let all: f64 = asked.values().sum();
        let own_capacity = capacity.get(self.own.as_str()).copied().filter(|own| *own > 0.0)?;
        let of = |zone: &str| asked.get(zone).map_or(0.0, |clients| clients / all);
        let own_asked = of(&self.own);
        if self.own.is_empty() || own_asked == 0.0 {
            return None;
        }
        let stays = (own_capacity / total / own_asked).min(1.0);
        let room = |zone: &str, weight: f64| (weight / total - of(zone)).max(0.0);
        let rooms: f64 = capacity.iter().map(|(zone, weight)| room(zone, *weight)).sum();
        let part = |(zone, weight): (&&'z str, &f64)| {
            let part = match *zone == self.own {
                true => stays,
                // Without room anywhere, what is left is an error of rounding.
                false if rooms == 0.0 => 0.0,
                false => (1.0 - stays) * room(zone, *weight) / rooms,
            };
            (*zone, part)
        };
        Some(capacity.iter().map(part).filter(|(_, part)| *part > 0.0).collect())
    }

    fn asked<'a>(&'a self, capacity: &BTreeMap<&'a str, f64>) -> BTreeMap<&'a str, f64> {
        if !self.clients.is_empty() {
            return self.clients.iter().map(|(zone, clients)| (zone.as_str(), f64::from(*clients))).collect();
        }
        let zones = capacity.keys().copied().chain([self.own.as_str()]);
        zones.filter(|zone| !zone.is_empty()).map(|zone| (zone, 1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn zones(own: &str, clients: &[u32]) -> Zones {
        let clients = NAMES.iter().zip(clients).map(|(zone, clients)| ((*zone).to_owned(), *clients)).collect();
        Zones { own: own.to_owned(), clients }
    }

    proptest! {
        #[test]
        fn no_zone_gets_more_than_its_endpoints_are_for(
            clients in proptest::collection::vec(0u32..100, 5),
            weights in proptest::collection::vec(0u32..100, 5),
        ) {
            let capacity: BTreeMap<&str, f64> = NAMES.into_iter().zip(weights.iter().map(|weight| f64::from(*weight))).collect();
            let total: f64 = capacity.values().sum();
            let all: f64 = clients.iter().copied().map(f64::from).sum();
            prop_assume!(total > 0.0 && all > 0.0);
            let mut load: BTreeMap<&str, f64> = BTreeMap::new();
            for (own, here) in NAMES.into_iter().zip(&clients) {
                let by_weight = || capacity.iter().map(|(zone, weight)| (*zone, weight / total)).collect();
                let known = zones(own, &clients).parts(&capacity);
                let parts: Vec<(&str, f64)> = known.clone().unwrap_or_else(by_weight);
                let sum: f64 = parts.iter().map(|(_, part)| part).sum();
                prop_assert!((sum - 1.0).abs() < 1e-9, "the parts of {own} sum to {sum}");
                for (zone, part) in parts {
                    // A zone without endpoints has none to prefer: its clients are spread over all, and are no one's fair share.
                    if known.is_some() || capacity[own] == 0.0 {
                        *load.entry(zone).or_default() += part * f64::from(*here) / all;
                    }
                    if zone == own && known.is_some() {
                        let fair = (capacity[own] / total) / (f64::from(*here) / all);
                        prop_assert!((part - fair.min(1.0)).abs() < 1e-9, "{own} keeps {part}");
                    }
                }
            }
            if NAMES.iter().zip(&clients).all(|(zone, here)| *here == 0 || capacity[zone] > 0.0) {
                for (zone, load) in load {
                    prop_assert!(load <= capacity[zone] / total + 1e-9, "{zone} gets {load} of {}", capacity[zone] / total);
                }
            }
        }
    }

    #[test]
    fn what_is_too_much_goes_where_there_is_room() {
        let capacity = BTreeMap::from([("a", 1.0), ("b", 2.0), ("c", 3.0)]);
        assert_eq!(zones("b", &[1, 1, 1]).parts(&capacity), Some(vec![("b", 1.0)]));
        assert_eq!(zones("a", &[1, 1, 1]).parts(&capacity), Some(vec![("a", 0.5), ("c", 0.5)]));
        // As many clients in each zone, if nobody said.
        assert_eq!(zones("a", &[]).parts(&capacity), Some(vec![("a", 0.5), ("c", 0.5)]));
        assert_eq!(zones("", &[]).parts(&capacity), None);
        assert_eq!(zones("z", &[]).parts(&capacity), None);
    }
}
