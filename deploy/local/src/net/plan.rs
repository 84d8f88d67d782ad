//! Addresses of the cluster's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Bits of a node's share of the pod network: 1021 pods a node, 64 nodes.
const NODE_BITS: u8 = 22;

/// One node's view of the cluster's addresses.
#[derive(Debug, Clone)]
pub struct NetworkPlan {
    /// The node's place among the nodes; the first is 0.
    pub index: u8,
    /// All nodes' pods.
    pub cluster: Ipv4Net,
    /// All nodes' pods; each has the address that ends like its IPv4 address.
    pub cluster6: Ipv6Net,
    /// This node's pods; the first host address is the bridge's.
    pub pods: Ipv4Net,
    /// Service addresses (ClusterIPs). Every address in it is local to the node's namespace.
    pub services: Ipv4Net,
    pub services6: Ipv6Net,
    /// Where DNS answers.
    pub dns: Ipv4Addr,
    /// Where the Kubernetes API answers inside the cluster (`default/kubernetes`).
    pub kubernetes: Ipv4Addr,
    /// Nodes reach one another here.
    pub fabric: Ipv4Net,
    pub fabric6: Ipv6Net,
}

impl Default for NetworkPlan {
    fn default() -> Self {
        Self::of_node(0)
    }
}

impl NetworkPlan {
    /// The most nodes there is room for.
    pub const MAX_NODES: u8 = 64;

    pub fn of_node(index: u8) -> Self {
        let index = index.min(Self::MAX_NODES - 1);
        let cluster = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
        let first = cluster.network().to_bits() + (u32::from(index) << (32 - NODE_BITS));
        let net6 = |third, len| Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, third, 0, 0, 0, 0, 0), len);
        Self {
            index,
            cluster,
            cluster6: net6(0x244, 112),
            pods: Ipv4Net::new_assert(Ipv4Addr::from_bits(first), NODE_BITS),
            services: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
            services6: net6(0x96, 112),
            dns: Ipv4Addr::new(10, 96, 0, 10),
            kubernetes: Ipv4Addr::new(10, 96, 0, 1),
            fabric: Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 24),
            fabric6: net6(0x64, 112),
        }
    }

    /// The bridge's address: the pods' gateway and the node's InternalIP.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pods.network().to_bits() + 1)
    }

    pub fn gateway6(&self) -> Ipv6Addr {
        self.pod6(self.gateway())
    }

    /// This node's share of the IPv6 pod network.
    pub fn pods6(&self) -> Ipv6Net {
        Ipv6Net::new_assert(self.pod6(self.pods.network()), 96 + NODE_BITS)
    }

    /// The IPv6 address of the pod with this IPv4 address.
    pub fn pod6(&self, pod: Ipv4Addr) -> Ipv6Addr {
        let offset = pod.to_bits() - self.cluster.network().to_bits();
        Ipv6Addr::from_bits(self.cluster6.network().to_bits() + u128::from(offset))
    }

    /// The node's own address among the nodes.
    pub fn uplink(&self) -> (Ipv4Addr, Ipv6Addr) {
        let place = u32::from(self.index) + 1;
        let low = Ipv4Addr::from_bits(self.fabric.network().to_bits() + place);
        (low, Ipv6Addr::from_bits(self.fabric6.network().to_bits() + u128::from(place)))
    }

    /// Whether a pod or node has this address.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.cluster.contains(&address),
            IpAddr::V6(address) => self.cluster6.contains(&address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_shares_of_the_pod_network_that_do_not_overlap() {
        let shown = |index| {
            let plan = NetworkPlan::of_node(index);
            format!("{} {} {} {} {}", plan.pods, plan.gateway(), plan.pods6(), plan.gateway6(), plan.uplink().0)
        };
        assert_eq!(shown(0), "10.244.0.0/22 10.244.0.1 fd00:10:244::/118 fd00:10:244::1 100.64.0.1");
        assert_eq!(shown(1), "10.244.4.0/22 10.244.4.1 fd00:10:244::400/118 fd00:10:244::401 100.64.0.2");
        assert_eq!(shown(63), "10.244.252.0/22 10.244.252.1 fd00:10:244::fc00/118 fd00:10:244::fc01 100.64.0.64");
    }
}
