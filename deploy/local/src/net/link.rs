//! Interfaces, addresses and routes, by rtnetlink inside the namespace concerned.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{NetError, Netns};

/// Loopback always has index 1 in a new namespace.
pub(super) const LOOPBACK: u32 = 1;
/// The kernel's routing table for local addresses.
const TABLE_LOCAL: u32 = 255;
/// Requests to make a link are answered with this when the kernel lacks the kind of link.
const EOPNOTSUPP: i32 = -95;

/// A namespace's interfaces, addresses and routes.
pub(super) struct Links {
    pub handle: Handle,
}

/// A route to make.
pub(super) struct Route {
    pub to: IpNet,
    pub device: u32,
    pub via: Option<IpAddr>,
    /// The address connections along it come from.
    pub from: Option<IpAddr>,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Global,
    /// Everything in it is at the other end of the device.
    Link,
    /// Everything in it is this namespace itself.
    Local,
}

impl Links {
    /// Of the namespace given, or of the calling process.
    pub fn of(netns: Option<&Netns>) -> Result<Self, NetError> {
        let runtime = tokio::runtime::Handle::current();
        let connect = || {
            let _guard = runtime.enter();
            rtnetlink::new_connection()
        };
        let connected = match netns {
            Some(netns) => netns.run(connect).and_then(|made| made),
            None => connect(),
        };
        let (connection, handle, _) = connected.map_err(NetError::Enter)?;
        // Ends when the last handle is dropped.
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub async fn index(&self, name: &str) -> Result<u32, NetError> {
        let mut links = self.handle.link().get().match_name(name.to_owned()).execute();
        match links.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            _ => Err(NetError::NoLink(name.to_owned())),
        }
    }

    pub async fn up(&self, index: u32) -> Result<(), NetError> {
        let request = self.handle.link().set(LinkUnspec::new_with_index(index).up().build());
        request.execute().await.map_err(|source| NetError::Netlink { what: "bring an interface up", source })
    }

    /// Makes a pair of interfaces and moves the second into `other`, where it keeps its name. Gives the first one's index.
    pub async fn pair(&self, name: &str, peer: &str, other: &Netns) -> Result<u32, NetError> {
        let request = self.handle.link().add(LinkVeth::new(name, peer).build());
        request.execute().await.map_err(|source| made("a veth pair", "veth", "VETH", source))?;
        let moving = self.index(peer).await?;
        let request = self.handle.link().set(LinkUnspec::new_with_index(moving).setns_by_fd(other.as_raw_fd()).build());
        request
            .execute()
            .await
            .map_err(|source| NetError::Netlink { what: "move a veth into its namespace", source })?;
        self.index(name).await
    }

    /// Attaches an interface to a bridge and brings it up.
    pub async fn enslave(&self, index: u32, bridge: u32) -> Result<(), NetError> {
        let request = self.handle.link().set(LinkUnspec::new_with_index(index).controller(bridge).up().build());
        request.execute().await.map_err(|source| NetError::Netlink { what: "attach a veth to the bridge", source })
    }

    pub async fn remove(&self, index: u32) -> Result<(), NetError> {
        let request = self.handle.link().del(index);
        request.execute().await.map_err(|source| NetError::Netlink { what: "remove a veth", source })
    }

    pub async fn address(&self, index: u32, ip: IpAddr, prefix: u8) -> Result<(), NetError> {
        let mut request = self.handle.address().add(index, ip, prefix);
        if ip.is_ipv6() {
            // In use at once: nobody else can have it.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(|source| NetError::Netlink { what: "add an address", source })
    }

    pub async fn route(&self, route: Route) -> Result<(), NetError> {
        let Route { to, device, via, from, kind } = route;
        let message = match to {
            IpNet::V4(to) => {
                let builder = RouteMessageBuilder::<std::net::Ipv4Addr>::new();
                let mut builder = builder.destination_prefix(to.network(), to.prefix_len()).output_interface(device);
                if let Some(IpAddr::V4(via)) = via {
                    builder = builder.gateway(via);
                }
                if let Some(IpAddr::V4(from)) = from {
                    builder = builder.pref_source(from);
                }
                match kind {
                    Kind::Global => builder,
                    Kind::Link => builder.scope(RouteScope::Link),
                    Kind::Local => builder.table_id(TABLE_LOCAL).scope(RouteScope::Host).kind(RouteType::Local),
                }
                .build()
            }
            IpNet::V6(to) => {
                let builder = RouteMessageBuilder::<std::net::Ipv6Addr>::new();
                let mut builder = builder.destination_prefix(to.network(), to.prefix_len()).output_interface(device);
                if let Some(IpAddr::V6(via)) = via {
                    builder = builder.gateway(via);
                }
                if let Some(IpAddr::V6(from)) = from {
                    builder = builder.pref_source(from);
                }
                if kind == Kind::Local { builder.table_id(TABLE_LOCAL).kind(RouteType::Local) } else { builder }.build()
            }
        };
        let request = self.handle.route().add(message);
        request.execute().await.map_err(|source| NetError::Route { to, source })
    }
}

pub(super) fn made(
    what: &'static str,
    module: &'static str,
    config: &'static str,
    source: rtnetlink::Error,
) -> NetError {
    match &source {
        rtnetlink::Error::NetlinkError(e) if e.raw_code() == EOPNOTSUPP => {
            NetError::Feature { what, module, config, source }
        }
        _ => NetError::Netlink { what, source },
    }
}
