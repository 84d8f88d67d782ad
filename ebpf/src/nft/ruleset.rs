//! What the rules say. In the words of nft(8), with `proxy` the proxy's cgroup:
//!
//! ```text
//! table inet fsm {
//!   chain outbound {
//!     type nat hook output priority dstnat
//!     meta l4proto != tcp return
//!     socket cgroupv2 level N proxy return
//!     tcp dport @outbound_ports return
//!     meta nfproto ipv4 ip  daddr @excluded4 return      with loopback and the unspecified address among them
//!     meta nfproto ipv6 ip6 daddr @excluded6 return      and IPv6 link-local
//!     meta nfproto ipv4 ip  daddr != @included4 return   both only if there are inclusions
//!     meta nfproto ipv6 ip6 daddr != @included6 return
//!     redirect to :15001
//!   }
//!   chain names {                                        only if names are captured
//!     type nat hook output priority dstnat
//!     meta l4proto != udp return
//!     udp dport != 53 return
//!     ...                                                as in `outbound`, from the proxy's cgroup on
//!     redirect to :15053
//!   }
//!   chain inbound {
//!     type nat hook prerouting priority dstnat
//!     meta l4proto != tcp return
//!     iif lo return
//!     tcp dport @inbound_ports return                    with the proxy's own ports among them
//!     redirect to :15003
//!   }
//! }
//! ```

use super::batch::{Batch, Expression, KeyType, Verdict};
use crate::{
    abi::{DNS_PORT, INBOUND_PORT, MESH_PORT, METRICS_PORT, OUTBOUND_PORT, PROBE_PORTS},
    rules::Rules,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// The loopback interface has this index in every network namespace.
const LOOPBACK: u32 = 1;
/// `NF_INET_LOCAL_OUT`, `NF_INET_PRE_ROUTING`.
const HOOK_OUTPUT: u32 = 3;
const HOOK_PREROUTING: u32 = 0;
const NAME_SERVER_PORT: u16 = 53;

/// How nf_tables names a cgroup: by its id, and how far it is below the root.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProxyCgroup {
    pub(super) id: u64,
    pub(super) level: u32,
}

/// Removes the table, whether or not there is one.
pub(super) fn removed() -> Batch {
    let mut batch = Batch::new();
    batch.add_table();
    batch.delete_table();
    batch
}

/// Everything, in place of what is there.
pub(super) fn ruleset(proxy: ProxyCgroup, rules: &Rules) -> Batch {
    let mut batch = removed();
    batch.add_table();
    let (excluded4, excluded6) = intervals(rules.outbound_ip_range_exclusions.iter().copied().chain(never_captured()));
    let (included4, included6) = intervals(rules.outbound_ip_range_inclusions.iter().copied());
    let own = [MESH_PORT, METRICS_PORT].into_iter().chain(PROBE_PORTS.0..=PROBE_PORTS.1);
    let inbound_ports = rules.inbound_port_exclusions.iter().copied().chain(own);
    batch.add_set("outbound_ports", KeyType::Port, &ports(rules.outbound_port_exclusions.iter().copied()));
    batch.add_set("inbound_ports", KeyType::Port, &ports(inbound_ports));
    batch.add_set("excluded4", KeyType::Ipv4, &excluded4);
    batch.add_set("excluded6", KeyType::Ipv6, &excluded6);
    batch.add_set("included4", KeyType::Ipv4, &included4);
    batch.add_set("included6", KeyType::Ipv6, &included6);

    let by_family = |set4, set6, outside| {
        [(NFPROTO_IPV4, set4), (NFPROTO_IPV6, set6)].map(|(family, set)| {
            let address = if family == NFPROTO_IPV4 { Expression::DestinationV4 } else { Expression::DestinationV6 };
            vec![
                Expression::Family(family),
                address,
                Expression::InSet { set, outside },
                Expression::Verdict(Verdict::Return),
            ]
        })
    };
    let other_than = |protocol| vec![Expression::OtherThan(protocol), Expression::Verdict(Verdict::Return)];
    let port_in = |set| {
        vec![
            Expression::DestinationPort,
            Expression::InSet { set, outside: false },
            Expression::Verdict(Verdict::Return),
        ]
    };

    let mut left_alone = vec![
        vec![Expression::Cgroup { id: proxy.id, level: proxy.level }, Expression::Verdict(Verdict::Return)],
        port_in("outbound_ports"),
    ];
    left_alone.extend(by_family("excluded4", "excluded6", false));
    if !rules.outbound_ip_range_inclusions.is_empty() {
        left_alone.extend(by_family("included4", "included6", true));
    }
    let redirect = |port| vec![Expression::Redirect(port)];
    let outbound = [&[other_than(libc::IPPROTO_TCP)], &left_alone[..], &[redirect(OUTBOUND_PORT)]].concat();
    batch.add_chain("outbound", HOOK_OUTPUT, &outbound);
    if rules.dns_capture {
        let not_to_name_server =
            vec![Expression::PortOtherThan(NAME_SERVER_PORT), Expression::Verdict(Verdict::Return)];
        let which = [other_than(libc::IPPROTO_UDP), not_to_name_server];
        batch.add_chain("names", HOOK_OUTPUT, &[&which, &left_alone[..], &[redirect(DNS_PORT)]].concat());
    }

    let inbound = [
        other_than(libc::IPPROTO_TCP),
        vec![Expression::FromInterface(LOOPBACK), Expression::Verdict(Verdict::Return)],
        port_in("inbound_ports"),
        vec![Expression::Redirect(INBOUND_PORT)],
    ];
    batch.add_chain("inbound", HOOK_PREROUTING, &inbound);
    batch
}

/// As the programs in the kernel decide it.
fn never_captured() -> impl Iterator<Item = IpNet> {
    ["127.0.0.0/8", "0.0.0.0/8", "::/127", "fe80::/10"].into_iter().filter_map(|range| range.parse().ok())
}

fn ports(ports: impl Iterator<Item = u16>) -> Vec<Interval> {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    ports.into_iter().map(|port| Interval { first: port.to_be_bytes().to_vec(), after: None }).collect()
}

/// Keys from `first` on, up to but without `after`; for a set of single keys and at the end of all keys there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) first: Vec<u8>,
    pub(super) after: Option<Vec<u8>>,
}

/// Intervals that do not touch, in order, as the kernel wants them.
fn intervals(ranges: impl Iterator<Item = IpNet>) -> (Vec<Interval>, Vec<Interval>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for range in ranges {
        match range {
            IpNet::V4(range) => v4.push(range),
            IpNet::V6(range) => v6.push(range),
        }
    }
    let bounds4 = |range: &Ipv4Net| (u128::from(u32::from(range.network())), u128::from(u32::from(range.broadcast())));
    let bounds6 = |range: &Ipv6Net| (u128::from(range.network()), u128::from(range.broadcast()));
    (merged(v4.iter().map(bounds4), 4), merged(v6.iter().map(bounds6), 16))
}

fn merged(bounds: impl Iterator<Item = (u128, u128)>, bytes: usize) -> Vec<Interval> {
    let mut bounds: Vec<(u128, u128)> = bounds.collect();
    bounds.sort_unstable();
    let mut joined: Vec<(u128, u128)> = Vec::new();
    for (first, last) in bounds {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    let largest = u128::MAX >> (128 - 8 * bytes);
    let key = |value: u128| value.to_be_bytes()[16 - bytes..].to_vec();
    joined
        .into_iter()
        .map(|(first, last)| Interval { first: key(first), after: (last < largest).then(|| key(last + 1)) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn contains(intervals: &[Interval], address: Ipv4Addr) -> bool {
        let key = address.octets().to_vec();
        intervals.iter().any(|i| i.first <= key && i.after.as_ref().is_none_or(|after| key < *after))
    }

    proptest! {
        #[test]
        fn intervals_contain_what_the_ranges_contain_and_do_not_touch(
            ranges in prop::collection::vec((any::<u32>(), 0..=32u8), 0..8), address in any::<u32>(), near in any::<prop::sample::Index>(),
        ) {
            let ranges: Vec<Ipv4Net> =
                ranges.into_iter().map(|(a, bits)| Ipv4Net::new(Ipv4Addr::from(a), bits).unwrap().trunc()).collect();
            let (v4, v6) = intervals(ranges.iter().map(|range| IpNet::V4(*range)));
            prop_assert!(v6.is_empty());
            let mut tried = vec![Ipv4Addr::from(address)];
            if !ranges.is_empty() {
                let range = near.get(&ranges);
                let (first, last) = (u32::from(range.network()), u32::from(range.broadcast()));
                tried.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)].map(Ipv4Addr::from));
            }
            for address in tried {
                prop_assert_eq!(contains(&v4, address), ranges.iter().any(|range| range.contains(&address)));
            }
            for pair in v4.windows(2) {
                prop_assert!(pair[0].after.as_ref().is_some_and(|after| *after < pair[1].first));
            }
        }
    }

    #[test]
    fn loopback_the_unspecified_address_and_link_local_are_never_captured() {
        let (v4, v6) = intervals(never_captured());
        assert_eq!((v4.len(), v6.len()), (2, 2));
        for address in ["127.1.2.3", "0.0.0.0"] {
            let IpAddr::V4(address) = address.parse().unwrap() else { panic!("an IPv4 address") };
            assert!(contains(&v4, address));
        }
    }
}
