//! One node's network namespace, its bridge, and the pods beside it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use rtnetlink::{LinkBridge, LinkUnspec};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::link::{Kind, LOOPBACK, Links, Route, made};
use super::{AddressPool, BRIDGE, Fabric, NetError, Netns, NetworkPlan, PodAddress};

/// The node's network namespace and its bridge. Dropping the last reference (and the pods' namespaces) removes everything.
#[derive(Debug)]
pub struct NodeNet {
    plan: NetworkPlan,
    netns: Netns,
    bridge: u32,
    pool: AddressPool,
    /// Whether the kernel does IPv6.
    ipv6: bool,
    /// Keeps the other nodes in reach.
    _fabric: Option<Arc<Fabric>>,
}

/// A pod's end of the network.
#[derive(Debug)]
pub struct PodNet {
    pub netns: Netns,
    pub address: PodAddress,
    ips: Vec<IpAddr>,
}

impl NodeNet {
    /// Makes the namespace, brings up loopback and the bridge, and joins the other nodes if there are any.
    ///
    /// # Errors
    /// Names the missing privilege or kernel feature.
    pub async fn create(plan: NetworkPlan, fabric: Option<Arc<Fabric>>) -> Result<Self, NetError> {
        let netns = Netns::create().map_err(NetError::Namespace)?;
        let ipv6 = netns.run(settings).map_err(NetError::Enter)?.map_err(NetError::Setting)?;
        let links = Links::of(Some(&netns))?;
        links.up(LOOPBACK).await?;
        // A bridge without an address of its own takes the lowest of its ports', a new one whenever a pod comes: the pods that
        // were there before would go on sending to the old one until their neighbour tables expire.
        let hardware = [&[0x0a, 0x58], &plan.gateway().octets()[..]].concat();
        let request = links.handle.link().add(LinkBridge::new(BRIDGE).address(hardware).up().build());
        request.execute().await.map_err(|source| made("a bridge", "bridge", "BRIDGE", source))?;
        let bridge = links.index(BRIDGE).await?;
        links.address(bridge, plan.gateway().into(), plan.pods.prefix_len()).await?;
        if ipv6 {
            links.address(bridge, plan.gateway6().into(), plan.pods6().prefix_len()).await?;
        }
        // All service addresses are local: one route instead of an address a service, and a connection to a service nobody
        // serves is refused at once. The node itself comes from its own address.
        let services = [(IpNet::V4(plan.services), IpAddr::V4(plan.gateway()))];
        let services6 = [(IpNet::V6(plan.services6), IpAddr::V6(plan.gateway6()))];
        for (to, from) in services.into_iter().chain(services6.into_iter().filter(|_| ipv6)) {
            links.route(Route { to, device: LOOPBACK, via: None, from: Some(from), kind: Kind::Local }).await?;
        }
        if let Some(fabric) = &fabric {
            fabric.join(&netns, &plan, ipv6).await?;
        }
        let pool = AddressPool::new(plan.pods);
        Ok(Self { plan, netns, bridge, pool, ipv6, _fabric: fabric })
    }

    pub fn plan(&self) -> &NetworkPlan {
        &self.plan
    }

    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The node's addresses; IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let own6 = self.ipv6.then(|| IpAddr::V6(self.plan.gateway6()));
        [IpAddr::V4(self.plan.gateway())].into_iter().chain(own6).collect()
    }

    /// Makes a pod's namespace, with loopback, `eth0`, its addresses and the default routes.
    ///
    /// A pod has its address alone (no subnet), so whatever it sends goes through the node: there the addresses of services are
    /// replaced, and put back in what is answered, even if it is answered by a neighbour.
    pub async fn add_pod(&self) -> Result<PodNet, NetError> {
        let address = self.pool.take().ok_or(NetError::NoAddress(self.pool.size()))?;
        let netns = Netns::create().map_err(NetError::Namespace)?;
        let ip = address.ip();
        let [a, b, high, low] = ip.octets();
        let (outer, inner) = (format!("veth{high:02x}{low:02x}"), format!("peer{high:02x}{low:02x}"));
        let links = Links::of(Some(&self.netns))?;
        // A pod that had this address may have gone a moment ago: its namespace, and with it the pair, is torn down behind our
        // back.
        if let Ok(stale) = links.index(&outer).await {
            links.remove(stale).await?;
        }
        let outer = links.pair(&outer, &inner, &netns).await?;
        links.enslave(outer, self.bridge).await?;

        let links = Links::of(Some(&netns))?;
        links.up(LOOPBACK).await?;
        let eth0 = links.index(&inner).await?;
        // The hardware address follows from the IP address, so a neighbour's cache entry stays right when the IP address comes
        // back.
        let link =
            LinkUnspec::new_with_index(eth0).name("eth0").address(vec![0x0a, 0x58, a, b, high, low]).up().build();
        let request = links.handle.link().set(link);
        request.execute().await.map_err(|source| NetError::Netlink { what: "set up eth0", source })?;
        let mut ips = vec![IpAddr::V4(ip)];
        let mut gateways = vec![IpAddr::V4(self.plan.gateway())];
        if self.ipv6 {
            ips.push(self.plan.pod6(ip).into());
            gateways.push(self.plan.gateway6().into());
        }
        for (ip, gateway) in ips.iter().zip(gateways) {
            links.address(eth0, *ip, if ip.is_ipv4() { 32 } else { 128 }).await?;
            let near = Route { to: gateway.into(), device: eth0, via: None, from: None, kind: Kind::Link };
            links.route(near).await?;
            let all =
                if ip.is_ipv4() { IpNet::V4(ipnet::Ipv4Net::default()) } else { IpNet::V6(ipnet::Ipv6Net::default()) };
            links.route(Route { to: all, device: eth0, via: Some(gateway), from: None, kind: Kind::Global }).await?;
        }
        Ok(PodNet { netns, address, ips })
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

    /// All addresses; IPv4 first.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }
}

/// Settings of a node's namespace, for the calling thread's. Says whether the kernel does IPv6.
fn settings() -> io::Result<bool> {
    let set = |name: &str, value: &str| std::fs::write(format!("/proc/sys/net/{name}"), value);
    set("ipv4/ip_forward", "1")?;
    // Pods send to the gateway what is for their neighbours, on purpose.
    set("ipv4/conf/all/send_redirects", "0")?;
    set("ipv4/conf/default/send_redirects", "0")?;
    // A kernel with br_netfilter replaces addresses on the bridge, before the node has seen a packet: one that a pod sends to itself
    // through a service would then have to leave by the port it came in at, which a bridge refuses. Kernels without it lack these.
    for name in ["iptables", "ip6tables", "arptables"] {
        set(&format!("bridge/bridge-nf-call-{name}"), "0").ok();
    }
    // Connections through services are remembered by the kernel for minutes after their end, in a table of the whole
    // machine; under a load test that would fill it. Older kernels lack some of these, and can do without.
    for (name, seconds) in [("time_wait", "5"), ("close_wait", "10"), ("fin_wait", "10"), ("close", "1")] {
        set(&format!("netfilter/nf_conntrack_tcp_timeout_{name}"), seconds).ok();
    }
    // A connection already under way when it is first seen is not cut.
    set("netfilter/nf_conntrack_tcp_be_liberal", "1").ok();
    if !std::path::Path::new("/proc/sys/net/ipv6/conf/all/forwarding").exists() {
        return Ok(false);
    }
    set("ipv6/conf/all/disable_ipv6", "0")?;
    set("ipv6/conf/all/forwarding", "1")?;
    Ok(true)
}
