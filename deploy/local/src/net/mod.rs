//! The node's network: one network namespace with a bridge, and one namespace a pod beside it.
//!
//! ```text
//!   host netns            node netns                                pod netns
//!   ───────────           ─────────────────────────────             ──────────────
//!   (no interface         lo    local 10.96.0.0/12 (services)       lo
//!    of ours)             fsm0  10.244.0.1/16 ── bridge ── veth ─── eth0 10.244.0.N/16
//! ```
//!
//! Nothing is added to the host's network. The process that runs the cluster stays in the host's namespace and opens
//! single sockets inside the node's or a pod's namespace ([`Netns`]); where a socket lives is fixed when it is created, so
//! it can be used from any thread afterwards.

mod address;
mod link;
mod netns;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

pub use address::{AddressPool, PodAddress};
pub use netns::Netns;

/// The name of the bridge inside the node's namespace.
pub const BRIDGE: &str = "fsm0";

/// Addresses of the cluster's network.
#[derive(Debug, Clone)]
pub struct NetworkPlan {
    /// Pod addresses; the first host address is the bridge's.
    pub pods: Ipv4Net,
    /// Service addresses (ClusterIPs). Every address in it is local to the node's namespace.
    pub services: Ipv4Net,
    /// Where DNS answers.
    pub dns: Ipv4Addr,
    /// Where the Kubernetes API answers inside the cluster (`default/kubernetes`).
    pub kubernetes: Ipv4Addr,
}

impl Default for NetworkPlan {
    fn default() -> Self {
        let net = |a, b, len| Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), len);
        Self {
            pods: net(10, 244, 16),
            services: net(10, 96, 12),
            dns: Ipv4Addr::new(10, 96, 0, 10),
            kubernetes: Ipv4Addr::new(10, 96, 0, 1),
        }
    }
}

impl NetworkPlan {
    /// The bridge's address: the pods' gateway and the node's InternalIP.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.pods.network().to_bits() + 1)
    }
}

/// What went wrong while building the network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot make a network namespace: {0}; run as root on a kernel with CONFIG_NET_NS")]
    Namespace(#[source] io::Error),
    #[error("cannot work in the network namespace: {0}")]
    Enter(#[source] io::Error),
    #[error("the kernel refused to make {what}: {source}; load the module `{module}` (CONFIG_{config}) and try again")]
    Feature { what: &'static str, module: &'static str, config: &'static str, source: rtnetlink::Error },
    #[error("netlink request \"{what}\" was refused: {source}")]
    Netlink { what: &'static str, source: rtnetlink::Error },
    #[error("interface {0} has vanished from its namespace")]
    NoLink(String),
    #[error("all {0} pod addresses are in use; delete pods that are no longer needed")]
    NoAddress(usize),
}

/// The node's network namespace and its bridge. Dropping the last reference (and the pods' namespaces) removes everything.
#[derive(Debug)]
pub struct NodeNet {
    plan: NetworkPlan,
    netns: Netns,
    bridge: u32,
    pool: AddressPool,
}

/// A pod's end of the network.
#[derive(Debug)]
pub struct PodNet {
    pub netns: Netns,
    pub address: PodAddress,
}

impl NodeNet {
    /// Makes the namespace, brings up loopback and the bridge.
    ///
    /// # Errors
    /// Names the missing privilege or kernel feature.
    pub async fn create(plan: NetworkPlan) -> Result<Self, NetError> {
        let netns = Netns::create().map_err(NetError::Namespace)?;
        let bridge = link::build_node(&netns, &plan).await?;
        let pool = AddressPool::new(plan.pods);
        Ok(Self { plan, netns, bridge, pool })
    }

    pub fn plan(&self) -> &NetworkPlan {
        &self.plan
    }

    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Makes a pod's namespace, with loopback, `eth0`, an address and the default route.
    pub async fn add_pod(&self) -> Result<PodNet, NetError> {
        let address = self.pool.take().ok_or(NetError::NoAddress(self.pool.size()))?;
        let netns = Netns::create().map_err(NetError::Namespace)?;
        link::connect_pod(&self.netns, self.bridge, &netns, &self.plan, address.ip()).await?;
        Ok(PodNet { netns, address })
    }

    /// Listens on a TCP address of the node's namespace.
    pub fn listen_std(&self, addr: SocketAddr) -> io::Result<std::net::TcpListener> {
        self.netns.run(|| std::net::TcpListener::bind(addr))?
    }

    /// Listens on a TCP address of the node's namespace, within a Tokio runtime.
    pub fn listen(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let listener = self.listen_std(addr)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// Binds a UDP address of the node's namespace.
    pub fn listen_udp(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.netns.run(|| std::net::UdpSocket::bind(addr))??;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    /// Connects to an address as seen from the node: pods, services, the API.
    pub async fn dial(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        self.netns.dial(addr).await
    }
}

impl PodNet {
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.address.ip())
    }
}
