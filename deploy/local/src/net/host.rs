//! The way from this machine into the cluster: one interface of the host, made when the first Service asks to be reached from
//! outside, and gone with the cluster.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::link::{Kind, LOOPBACK, Links, Route};
use super::{HOST_RANGE, NetError, NodeNet};

/// What a route that exists already is answered with.
const EEXIST: i32 = -17;

/// A range of addresses that the host sends to the first node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostLink {
    range: Ipv4Net,
}

impl HostLink {
    /// Takes a range nobody else on this host uses and connects `node`. `name` is the interface's, on the host.
    pub async fn connect(node: &NodeNet, name: &str) -> Result<Self, NetError> {
        let links = Links::of(None)?;
        // Both ends are on the host for a moment, where other clusters may make theirs.
        let node_end = format!("{name}n");
        let device = links.pair(name, &node_end, node.netns()).await?;
        links.up(device).await?;
        let range = claim(&links, device).await?;
        let link = Self { range };
        links.address(device, link.host().into(), 32).await?;

        let links = Links::of(Some(node.netns()))?;
        let device = links.index(&node_end).await?;
        links.up(device).await?;
        links.address(device, link.node().into(), 32).await?;
        let host = IpNet::from(IpAddr::V4(link.host()));
        links.route(Route { to: host, device, via: None, from: Some(link.node().into()), kind: Kind::Link }).await?;
        // Addresses no Service has refuse connections.
        let all = Route { to: IpNet::V4(range), device: LOOPBACK, via: None, from: None, kind: Kind::Local };
        links.route(all).await?;
        Ok(link)
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.range.network().to_bits() + offset)
    }

    /// The host's own address in the range.
    fn host(self) -> Ipv4Addr {
        self.at(1)
    }

    /// The first node's address in the range: node ports answer there.
    pub fn node(self) -> Ipv4Addr {
        self.at(2)
    }

    /// Addresses for Services.
    pub fn service_addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (16..255).map(move |offset| self.at(offset))
    }
}

/// A route to a /24 that no other cluster on this host has yet.
async fn claim(links: &Links, device: u32) -> Result<Ipv4Net, NetError> {
    let mut refused = None;
    for range in HOST_RANGE.subnets(24).into_iter().flatten() {
        let route = Route { to: IpNet::V4(range), device, via: None, from: None, kind: Kind::Link };
        match links.route(route).await {
            Ok(()) => return Ok(range),
            Err(NetError::Route { to, source: rtnetlink::Error::NetlinkError(error) })
                if error.raw_code() == EEXIST =>
            {
                refused = Some(NetError::Route { to, source: rtnetlink::Error::NetlinkError(error) });
            }
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or(NetError::NoAddress(0)))
}
