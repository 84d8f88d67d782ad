//! What connects several nodes on one machine: a bridge in a namespace of its own, as a switch between machines.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::LinkBridge;

use super::link::{Kind, LOOPBACK, Links, Route, made};
use super::{HOST_RANGE, NetError, Netns, NetworkPlan};

/// The bridge's name, and each node's interface to it.
const SWITCH: &str = "switch";
const UPLINK: &str = "uplink";

/// The network between the nodes.
#[derive(Debug)]
pub struct Fabric {
    netns: Netns,
    bridge: u32,
    nodes: u8,
}

impl Fabric {
    pub async fn create(nodes: u8) -> Result<Self, NetError> {
        let netns = Netns::create().map_err(NetError::Namespace)?;
        let links = Links::of(Some(&netns))?;
        links.up(LOOPBACK).await?;
        let request = links.handle.link().add(LinkBridge::new(SWITCH).up().build());
        request.execute().await.map_err(|source| made("a bridge", "bridge", "BRIDGE", source))?;
        let bridge = links.index(SWITCH).await?;
        Ok(Self { netns, bridge, nodes })
    }

    /// Gives a node its interface, and routes to the pods of all others.
    pub(super) async fn join(&self, node: &Netns, plan: &NetworkPlan, ipv6: bool) -> Result<(), NetError> {
        let links = Links::of(Some(&self.netns))?;
        let port = links.pair(&format!("node{}", plan.index), UPLINK, node).await?;
        links.enslave(port, self.bridge).await?;
        let links = Links::of(Some(node))?;
        let device = links.index(UPLINK).await?;
        links.up(device).await?;
        let (own, own6) = plan.uplink();
        links.address(device, own.into(), plan.fabric.prefix_len()).await?;
        if ipv6 {
            links.address(device, own6.into(), plan.fabric6.prefix_len()).await?;
        }
        for other in (0..self.nodes).filter(|other| *other != plan.index).map(NetworkPlan::of_node) {
            let (via, via6) = other.uplink();
            let mut routes = vec![(IpNet::V4(other.pods), IpAddr::V4(via), IpAddr::V4(plan.gateway()))];
            if ipv6 {
                routes.push((IpNet::V6(other.pods6()), via6.into(), plan.gateway6().into()));
            }
            if other.index == 0 {
                // The host is behind the first node.
                routes.push((IpNet::V4(HOST_RANGE), via.into(), plan.gateway().into()));
            }
            for (to, via, from) in routes {
                links.route(Route { to, device, via: Some(via), from: Some(from), kind: Kind::Global }).await?;
            }
        }
        Ok(())
    }
}
