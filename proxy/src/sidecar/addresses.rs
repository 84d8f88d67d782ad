//! The ports of a sidecar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Bound;
use crate::inbound::READY_PORT;

/// Mesh traffic from other proxies.
pub const MESH_PORT: u16 = 15008;
const ADMIN_PORT: u16 = 15000;
const OUTBOUND_PORT: u16 = 15001;
const CAPTURE_PORT: u16 = 15003;
const METRICS_PORT: u16 = 15010;
const NAMES_PORT: u16 = 15053;
const PROBE_PORTS: [u16; 4] = [15901, 15902, 15903, 15904];

/// Every port that a sidecar uses in its pod.
pub const OWN_PORTS: [u16; 10] =
    [ADMIN_PORT, OUTBOUND_PORT, CAPTURE_PORT, MESH_PORT, METRICS_PORT, 15901, 15902, 15903, 15904, READY_PORT];

/// What a sidecar listens on. An IPv6 address may be left out by a host without IPv6 if an IPv4 one comes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Connections that the application makes.
    pub outbound: Vec<SocketAddr>,
    /// Plain connections to the application.
    pub capture: Vec<SocketAddr>,
    /// Connections of other proxies.
    pub mesh: Vec<SocketAddr>,
    pub metrics: Vec<SocketAddr>,
    /// Relays for the kubelet's probes. All are served alike; the ports tell kinds of probes apart for FSM's users.
    pub probes: Vec<SocketAddr>,
    /// Captured queries for names, over UDP.
    pub names: Vec<SocketAddr>,
}

impl Default for Addresses {
    fn default() -> Self {
        let everywhere = |port| [on(Ipv4Addr::UNSPECIFIED, port), on(Ipv6Addr::UNSPECIFIED, port)];
        Self {
            outbound: vec![on(Ipv4Addr::LOCALHOST, OUTBOUND_PORT), on(Ipv6Addr::LOCALHOST, OUTBOUND_PORT)],
            capture: everywhere(CAPTURE_PORT).into(),
            mesh: everywhere(MESH_PORT).into(),
            metrics: everywhere(METRICS_PORT).into(),
            probes: PROBE_PORTS.into_iter().flat_map(everywhere).collect(),
            names: vec![on(Ipv4Addr::LOCALHOST, NAMES_PORT), on(Ipv6Addr::LOCALHOST, NAMES_PORT)],
        }
    }
}

impl Bound {
    /// The ports that are the proxy's own, whatever it was told to listen on.
    pub(super) fn ports(&self) -> Vec<u16> {
        let bound = [&self.outbound, &self.capture, &self.mesh, &self.metrics, &self.probes];
        let mut ports: Vec<u16> = bound.into_iter().flatten().map(SocketAddr::port).chain(OWN_PORTS).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}

fn on(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}
