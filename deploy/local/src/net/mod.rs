//! The cluster's network: one network namespace a node, with a bridge, and one namespace a pod beside it.
//!
//! ```text
//!   host netns            node netns                                     pod netns
//!   ───────────           ─────────────────────────────                  ──────────────
//!   (veth, if a Service   lo    local 10.96.0.0/12 (services)            lo
//!    asks for it) ───────       fsm0  10.244.0.1/22 ── bridge ── veth ── eth0 10.244.0.N/32
//!                         uplink ── other nodes, through a namespace with a switch
//! ```
//!
//! The process that runs the cluster stays in the host's namespace and opens single sockets inside a node's or a pod's namespace
//! ([`Netns`]); where a socket lives is fixed when it is created, so it can be used from any thread afterwards.

mod address;
mod fabric;
mod host;
mod link;
mod netns;
mod node;
mod plan;

use std::io;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

pub use address::{AddressPool, PodAddress};
pub use fabric::Fabric;
pub use host::HostLink;
pub use netns::Netns;
pub use node::{NodeNet, PodNet};
pub use plan::NetworkPlan;

/// The name of the bridge inside the node's namespace.
pub const BRIDGE: &str = "fsm0";
/// Addresses by which the host reaches clusters, a /24 for each: the range kept for testing networks (RFC 2544).
const HOST_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15);

/// What went wrong while building the network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot make a network namespace: {0}; run as root on a kernel with CONFIG_NET_NS")]
    Namespace(#[source] io::Error),
    #[error("cannot work in the network namespace: {0}")]
    Enter(#[source] io::Error),
    #[error("cannot change a network setting of the namespace (below /proc/sys/net): {0}")]
    Setting(#[source] io::Error),
    #[error("the kernel refused to make {what}: {source}; load the module `{module}` (CONFIG_{config}) and try again")]
    Feature { what: &'static str, module: &'static str, config: &'static str, source: rtnetlink::Error },
    #[error("netlink request \"{what}\" was refused: {source}")]
    Netlink { what: &'static str, source: rtnetlink::Error },
    #[error("the route to {to} was refused: {source}")]
    Route { to: IpNet, source: rtnetlink::Error },
    #[error("interface {0} has vanished from its namespace")]
    NoLink(String),
    #[error("all {0} pod addresses are in use; delete pods that are no longer needed")]
    NoAddress(usize),
}
