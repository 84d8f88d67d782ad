//! Interfaces, addresses and routes, by rtnetlink inside the namespace concerned.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{BRIDGE, NetError, Netns, NetworkPlan};

/// Loopback always has index 1 in a new namespace.
const LOOPBACK: u32 = 1;
/// The kernel's routing table for local addresses.
const TABLE_LOCAL: u32 = 255;
/// Requests to make a link are answered with this when the kernel lacks the kind of link.
const EOPNOTSUPP: i32 = -95;

/// Brings up loopback and the bridge; returns the bridge's index.
pub(super) async fn build_node(netns: &Netns, plan: &NetworkPlan) -> Result<u32, NetError> {
    let handle = connect(netns)?;
    up(&handle, LOOPBACK).await?;

    // A bridge without an address of its own takes the lowest of its ports', a new one whenever a pod comes: the pods that were
    // there before would go on sending to the old one until their neighbour tables expire.
    let hardware = [&[0x0a, 0x58], &plan.gateway().octets()[..]].concat();
    let request = handle.link().add(LinkBridge::new(BRIDGE).address(hardware).up().build());
    request.execute().await.map_err(|source| made("a bridge", "bridge", "BRIDGE", source))?;
    let bridge = index(&handle, BRIDGE).await?;
    address(&handle, bridge, plan.gateway(), plan.pods.prefix_len()).await?;

    // All service addresses are local: one route instead of an address a service, and a connection to a service nobody
    // listens for is refused at once.
    let services = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(plan.services.network(), plan.services.prefix_len())
        .output_interface(LOOPBACK)
        .table_id(TABLE_LOCAL)
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
        .build();
    let request = handle.route().add(services);
    request.execute().await.map_err(|source| NetError::Netlink { what: "route the service network", source })?;
    Ok(bridge)
}

/// Connects `pod` to the bridge with a veth pair and gives it its address and default route.
pub(super) async fn connect_pod(
    node: &Netns,
    bridge: u32,
    pod: &Netns,
    plan: &NetworkPlan,
    ip: Ipv4Addr,
) -> Result<(), NetError> {
    let [_, _, high, low] = ip.octets();
    let (outer, inner) = (format!("veth{high:02x}{low:02x}"), format!("peer{high:02x}{low:02x}"));
    let handle = connect(node)?;
    // A pod that had this address may have gone a moment ago: its namespace, and with it the pair, is torn down behind our back.
    if let Ok(stale) = index(&handle, &outer).await {
        let request = handle.link().del(stale);
        request.execute().await.map_err(|source| NetError::Netlink { what: "remove a stale veth", source })?;
    }
    let request = handle.link().add(LinkVeth::new(&outer, &inner).build());
    request.execute().await.map_err(|source| made("a veth pair", "veth", "VETH", source))?;
    let outer = index(&handle, &outer).await?;
    let request = handle.link().set(LinkUnspec::new_with_index(outer).controller(bridge).up().build());
    request.execute().await.map_err(|source| NetError::Netlink { what: "attach veth to the bridge", source })?;
    let peer = index(&handle, &inner).await?;
    let request = handle.link().set(LinkUnspec::new_with_index(peer).setns_by_fd(pod.as_raw_fd()).build());
    request.execute().await.map_err(|source| NetError::Netlink { what: "move veth into the pod", source })?;

    let handle = connect(pod)?;
    up(&handle, LOOPBACK).await?;
    let eth0 = index(&handle, &inner).await?;
    // The hardware address follows from the IP address, so a neighbour's cache entry stays right when the IP address comes back.
    let [a, b, c, d] = ip.octets();
    let link = LinkUnspec::new_with_index(eth0).name("eth0").address(vec![0x0a, 0x58, a, b, c, d]).up().build();
    handle.link().set(link).execute().await.map_err(|source| NetError::Netlink { what: "set up eth0", source })?;
    address(&handle, eth0, ip, plan.pods.prefix_len()).await?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(plan.gateway()).build();
    let request = handle.route().add(default);
    request.execute().await.map_err(|source| NetError::Netlink { what: "add the default route", source })
}

fn connect(netns: &Netns) -> Result<Handle, NetError> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, _) = netns
        .run(|| {
            let _guard = runtime.enter();
            rtnetlink::new_connection()
        })
        .and_then(|made| made)
        .map_err(NetError::Enter)?;
    // Ends when the last handle is dropped.
    tokio::spawn(connection);
    Ok(handle)
}

async fn index(handle: &Handle, name: &str) -> Result<u32, NetError> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await {
        Ok(Some(link)) => Ok(link.header.index),
        _ => Err(NetError::NoLink(name.to_owned())),
    }
}

async fn up(handle: &Handle, index: u32) -> Result<(), NetError> {
    let request = handle.link().set(LinkUnspec::new_with_index(index).up().build());
    request.execute().await.map_err(|source| NetError::Netlink { what: "bring an interface up", source })
}

async fn address(handle: &Handle, index: u32, ip: Ipv4Addr, prefix: u8) -> Result<(), NetError> {
    let request = handle.address().add(index, ip.into(), prefix);
    request.execute().await.map_err(|source| NetError::Netlink { what: "add an address", source })
}

fn made(what: &'static str, module: &'static str, config: &'static str, source: rtnetlink::Error) -> NetError {
    match &source {
        rtnetlink::Error::NetlinkError(e) if e.raw_code() == EOPNOTSUPP => {
            NetError::Feature { what, module, config, source }
        }
        _ => NetError::Netlink { what, source },
    }
}
