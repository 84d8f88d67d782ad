//! The service network's table: from a plan to rules of nf_tables, in the manner of kube-proxy.
//!
//! A packet to a known address and port goes to the chain of those who answer it; the chain picks an endpoint, at random or by the
//! client's address, and replaces the destination. The sender stays as it is, with two exceptions: a pod that reaches itself, and a
//! client from outside whose answer would not come back through this node.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::nft::{Expressions, Header, Hook, Meta, OUTPUT, POSTROUTING, PREROUTING, Reg, Table, Target};
use super::plan::{Balanced, Protocol};
use crate::net::{Netns, NetworkPlan};

const TABLE: &str = "fsm-services";
/// Marks packets whose sender is to be the node.
const HIDE: [u8; 4] = 0x4000_u32.to_ne_bytes();

/// An address family and where its addresses are in a packet.
#[derive(Clone, Copy)]
struct Family {
    number: u8,
    map: &'static str,
    hairpins: &'static str,
    bytes: u32,
    source: u32,
    destination: u32,
}

const V4: Family =
    Family { number: 2, map: "addresses4", hairpins: "hairpins4", bytes: 4, source: 12, destination: 16 };
const V6: Family =
    Family { number: 10, map: "addresses6", hairpins: "hairpins6", bytes: 16, source: 8, destination: 24 };

impl Family {
    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { V4 } else { V6 }
    }

    fn words(self) -> u32 {
        self.bytes / 4
    }

    fn only(self) -> Expressions {
        Expressions::default().load_meta(Meta::Protocol, Reg(0)).equals(Reg(0), &[self.number])
    }
}

/// Puts the plan in force in a node's namespace, in place of what was.
pub(super) fn enforce(plan: &[Balanced], network: &NetworkPlan, netns: &Netns) -> io::Result<()> {
    let mut table = Table::anew(TABLE);
    for (name, number, priority) in
        [("incoming", PREROUTING, -100), ("own", OUTPUT, -100), ("leaving", POSTROUTING, 100)]
    {
        table.chain(name, Some(Hook { kind: "nat", number, priority }));
    }
    for (at, balanced) in plan.iter().enumerate() {
        answer(&mut table, &format!("service{at}"), balanced, network);
    }
    for family in [V4, V6] {
        let of_family = || plan.iter().enumerate().filter(move |(_, b)| family.number == family_of(b).number);
        let mut entries = Vec::new();
        for (at, balanced) in of_family() {
            for address in &balanced.addresses {
                entries.push((key(balanced.protocol, *address), Target::Chain(format!("service{at}"))));
            }
        }
        // Two services can't have the same address and port, but a plan that says so must not fail as a whole.
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|a, b| a.0 == b.0);
        let address = family.bytes as usize;
        table.map(family.map, address + 8, None, &entries);
        let mut selves: Vec<Vec<u8>> =
            of_family().flat_map(|(_, b)| &b.endpoints).map(|e| [octets(e.ip()), octets(e.ip())].concat()).collect();
        selves.sort();
        selves.dedup();
        table.set(family.hairpins, 2 * address, &selves);
        let asked = family
            .only()
            .load_meta(Meta::Transport, Reg(0))
            .load(Header::Network, family.destination, family.bytes, Reg(1))
            .load(Header::Transport, 2, 2, Reg(1 + family.words()))
            .dispatch(family.map, Reg(0));
        table.rule("incoming", &asked);
        table.rule("own", &asked);
        let itself = family
            .only()
            .load(Header::Network, family.source, family.bytes, Reg(0))
            .load(Header::Network, family.destination, family.bytes, Reg(family.words()))
            .in_set(family.hairpins, Reg(0))
            .masquerade();
        table.rule("leaving", &itself);
    }
    table.rule("leaving", &Expressions::default().load_meta(Meta::Mark, Reg(0)).equals(Reg(0), &HIDE).masquerade());
    table.commit(netns)
}

/// The chain of one group of addresses.
fn answer(table: &mut Table, chain: &str, balanced: &Balanced, network: &NetworkPlan) {
    let family = family_of(balanced);
    let endpoints = format!("{chain}-endpoints");
    table.chain(chain, None);
    let numbered = (0_u32..).zip(&balanced.endpoints).map(|(n, endpoint)| {
        let port = [&endpoint.port().to_be_bytes()[..], &[0; 2]].concat();
        (n.to_ne_bytes().to_vec(), Target::Value([octets(endpoint.ip()), port].concat()))
    });
    table.map(&endpoints, 4, Some(family.bytes as usize + 4), &numbered.collect::<Vec<_>>());
    if balanced.hide_outsiders {
        let (inside, mask) = if family.number == V4.number {
            (octets(network.cluster.network().into()), octets(network.cluster.netmask().into()))
        } else {
            (octets(network.cluster6.network().into()), octets(network.cluster6.netmask().into()))
        };
        let outsider = Expressions::default()
            .load(Header::Network, family.source, family.bytes, Reg(0))
            .mask(Reg(0), &mask)
            .differs(Reg(0), &inside);
        table.rule(chain, &outsider.value(Reg(0), &HIDE).set_meta(Meta::Mark, Reg(0)));
    }
    let count = u32::try_from(balanced.endpoints.len()).unwrap_or(u32::MAX);
    let number = if balanced.sticky {
        let client = Expressions::default().load(Header::Network, family.source, family.bytes, Reg(4));
        client.hash(Reg(4), family.bytes, count, Reg(0))
    } else {
        Expressions::default().random(count, Reg(0))
    };
    let port = Reg(4 + family.words());
    table.rule(chain, &number.translate(&endpoints, Reg(0), Reg(4)).destination(family.number, Reg(4), port));
}

fn family_of(balanced: &Balanced) -> Family {
    balanced.endpoints.first().map_or(V4, |endpoint| Family::of(endpoint.ip()))
}

/// Protocol, address and port, each padded to whole registers.
fn key(protocol: Protocol, address: SocketAddr) -> Vec<u8> {
    [&[protocol as u8, 0, 0, 0][..], &octets(address.ip()), &address.port().to_be_bytes(), &[0; 2]].concat()
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Whether the kernel can do all of this, in a namespace made for the purpose.
pub(super) fn check(network: &NetworkPlan) -> io::Result<()> {
    let address = |text: &str| text.parse().map_err(io::Error::other);
    let sample = |own: &str, endpoint: &str, sticky| -> io::Result<Balanced> {
        let (addresses, endpoints) = (vec![address(own)?], vec![address(endpoint)?]);
        Ok(Balanced { protocol: Protocol::Tcp, addresses, endpoints, hide_outsiders: true, sticky })
    };
    let plan =
        [sample("10.96.0.7:80", "10.244.0.2:80", true)?, sample("[fd00:10:96::7]:80", "[fd00:10:244::2]:80", false)?];
    enforce(&plan, network, &Netns::create()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_the_rules_of_many_services() {
        if !crate::preflight::is_root() {
            println!("skipped: needs root");
            return;
        }
        let service = |n: u16| Balanced {
            protocol: if n.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp },
            addresses: vec![SocketAddr::new(IpAddr::from([10, 96, (n >> 8) as u8, n as u8]), 80)],
            endpoints: (1..4).map(|host| SocketAddr::new(IpAddr::from([10, 244, n as u8, host]), 8080)).collect(),
            hide_outsiders: n.is_multiple_of(3),
            sticky: n.is_multiple_of(5),
        };
        let plan: Vec<_> = (0..1000).map(service).collect();
        let netns = Netns::create().unwrap();
        enforce(&plan, &NetworkPlan::default(), &netns).unwrap();
        // Again, in place of the first.
        enforce(&plan[..10], &NetworkPlan::default(), &netns).unwrap();
        check(&NetworkPlan::default()).unwrap();
    }
}
