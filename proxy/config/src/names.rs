//! What the sidecar's DNS server knows by itself: FSM's `spec.sidecar.localDNSProxy` of the MeshConfig.
//!
//! Names are compared without regard to case and to a final dot. A name with addresses of one family only has an empty answer for the
//! other one, not none: asking elsewhere could bring another host's (RFC 2308, section 2.2).

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Records, and what becomes of names without one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Name servers to ask, in this order; empty: those of the pod.
    pub upstreams: Vec<IpAddr>,
    /// By name, in lower case and without the final dot.
    pub(crate) records: HashMap<String, Vec<IpAddr>>,
    /// What names get that no name server knows; empty: that they are unknown.
    pub wildcard: Vec<IpAddr>,
    /// Addresses in answers in whose place the wildcard's are given.
    pub(crate) replaced: HashSet<IpAddr>,
    /// IPv6 addresses are made of IPv4 ones (`::ffff:a.b.c.d`) where there is no other.
    pub(crate) mapped: bool,
}

/// A family of addresses: the types A and AAAA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Names {
    /// The addresses of a name that has a record.
    pub fn known(&self, name: &str, family: Family) -> Option<Vec<IpAddr>> {
        self.records.get(&canonical(name)).map(|all| self.of(all, family))
    }

    /// The addresses for names that no name server knows; none if these stay unknown.
    ///
    /// `search` are the domains that resolvers append to names: what ends in one of them is a guess of the resolver, which goes on to
    /// the name itself when it hears that there is no such name.
    pub fn unknown(&self, name: &str, search: &[String], family: Family) -> Option<Vec<IpAddr>> {
        let name = canonical(name);
        let guess = search.iter().any(|domain| {
            name.strip_suffix(canonical(domain).as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        (!self.wildcard.is_empty() && !guess).then(|| self.of(&self.wildcard, family))
    }

    /// The addresses to give instead of `found`, if one of these is to be replaced.
    pub fn instead(&self, found: &[IpAddr], family: Family) -> Option<Vec<IpAddr>> {
        found.iter().any(|address| self.replaced.contains(address)).then(|| {
            let kept = found.iter().filter(|address| !self.replaced.contains(address)).copied();
            kept.chain(self.of(&self.wildcard, family)).collect()
        })
    }

    /// Whether answers have to be looked at.
    pub fn changes_answers(&self) -> bool {
        !self.wildcard.is_empty()
    }

    fn of(&self, all: &[IpAddr], family: Family) -> Vec<IpAddr> {
        let own = |address: &&IpAddr| address.is_ipv4() == (family == Family::V4);
        let found: Vec<IpAddr> = all.iter().filter(own).copied().collect();
        if !found.is_empty() || family == Family::V4 || !self.mapped {
            return found;
        }
        let mapped = all.iter().map(|address| match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
            IpAddr::V6(_) => *address,
        });
        mapped.collect()
    }
}

/// A name as it is compared.
pub(crate) fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(text: &str) -> Vec<IpAddr> {
        text.split_whitespace().map(|ip| ip.parse().unwrap()).collect()
    }

    fn names(mapped: bool) -> Names {
        Names {
            records: [
                ("db.example.com".to_owned(), ips("10.1.1.1 10.1.1.2")),
                ("six.example.com".to_owned(), ips("fd00::6")),
            ]
            .into(),
            wildcard: ips("10.9.9.9"),
            replaced: ips("127.0.0.2").into_iter().collect(),
            mapped,
            ..Names::default()
        }
    }

    #[test]
    fn a_record_answers_both_families() {
        assert_eq!(names(false).known("DB.example.com.", Family::V4), Some(ips("10.1.1.1 10.1.1.2")));
        assert_eq!(names(false).known("db.example.com", Family::V6), Some(vec![]));
        assert_eq!(names(true).known("db.example.com", Family::V6), Some(ips("::ffff:10.1.1.1 ::ffff:10.1.1.2")));
        assert_eq!(names(true).known("six.example.com", Family::V6), Some(ips("fd00::6")));
        assert_eq!(names(true).known("six.example.com", Family::V4), Some(vec![]));
        assert_eq!(names(true).known("b.example.com", Family::V4), None);
    }

    #[test]
    fn the_wildcard_is_for_names_not_for_the_resolvers_guesses() {
        let search = ["shop.svc.cluster.local".to_owned(), "cluster.local.".to_owned()];
        assert_eq!(names(false).unknown("nowhere.test.", &search, Family::V4), Some(ips("10.9.9.9")));
        assert_eq!(names(false).unknown("nowhere.test.shop.svc.cluster.local.", &search, Family::V4), None);
        assert_eq!(names(false).unknown("mycluster.local", &search, Family::V4), Some(ips("10.9.9.9")));
        assert_eq!(Names::default().unknown("nowhere.test", &[], Family::V4), None);
    }

    #[test]
    fn addresses_are_replaced_by_the_wildcards() {
        assert_eq!(names(false).instead(&ips("10.0.0.1 127.0.0.2"), Family::V4), Some(ips("10.0.0.1 10.9.9.9")));
        assert_eq!(names(false).instead(&ips("10.0.0.1"), Family::V4), None);
    }
}
