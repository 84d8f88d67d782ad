//! The sockets of a sidecar: bound, taken over from a predecessor, and lent to a successor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Weak};

use tokio::net::UdpSocket;

use super::{Addresses, Bound};
use crate::accept::{BindError, Inherited, Listener, Role, bind, bind_udp};

/// All that a sidecar listens on. A socket is closed once nobody serves it.
pub struct Sockets {
    listeners: Vec<(Role, Arc<Listener>)>,
    names: Vec<Arc<UdpSocket>>,
}

/// The same sockets, as long as they are served.
pub struct Lent {
    listeners: Vec<(Role, Weak<Listener>)>,
    names: Vec<Weak<UdpSocket>>,
}

impl Sockets {
    /// Takes what is `inherited`, and binds the rest.
    pub fn bind(addresses: &Addresses, inherited: &mut Inherited) -> Result<Self, BindError> {
        let Addresses { outbound, capture, mesh, metrics, probes, names } = addresses;
        let mut listeners = Vec::new();
        for (role, addresses) in [
            (Role::Outbound, outbound),
            (Role::Capture, capture),
            (Role::Mesh, mesh),
            (Role::Metrics, metrics),
            (Role::Probes, probes),
        ] {
            let bound = each(addresses, |address| bind(address, role, inherited))?;
            listeners.extend(bound.into_iter().map(|listener| (role, Arc::new(listener))));
        }
        let names = each(names, |address| bind_udp(address, Role::Names, inherited))?;
        Ok(Self { listeners, names: names.into_iter().map(Arc::new).collect() })
    }

    pub fn bound(&self) -> Bound {
        let of = |role| self.of(role).map(|listener| listener.address()).collect();
        Bound {
            outbound: of(Role::Outbound),
            capture: of(Role::Capture),
            mesh: of(Role::Mesh),
            metrics: of(Role::Metrics),
            probes: of(Role::Probes),
            names: self.names.iter().filter_map(|socket| socket.local_addr().ok()).collect(),
        }
    }

    /// The listeners for one purpose.
    pub fn of(&self, role: Role) -> impl Iterator<Item = Arc<Listener>> {
        self.listeners.iter().filter(move |(one, _)| *one == role).map(|(_, listener)| Arc::clone(listener))
    }

    /// Those for queries for names.
    pub fn names(&self) -> &[Arc<UdpSocket>] {
        &self.names
    }

    pub fn lent(&self) -> Lent {
        Lent {
            listeners: self.listeners.iter().map(|(role, one)| (*role, Arc::downgrade(one))).collect(),
            names: self.names.iter().map(Arc::downgrade).collect(),
        }
    }
}

impl Lent {
    /// A second descriptor of each socket.
    ///
    /// # Errors
    ///
    /// When the process has no descriptors left.
    pub fn for_successor(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        let listeners = self.listeners.iter().filter_map(|(role, one)| Some((*role, one.upgrade()?)));
        let names = self.names.iter().filter_map(Weak::upgrade);
        let listeners = listeners.map(|(role, one)| Ok((role, one.as_fd().try_clone_to_owned()?)));
        listeners.chain(names.map(|one| Ok((Role::Names, one.as_fd().try_clone_to_owned()?)))).collect()
    }
}

fn each<T>(
    addresses: &[SocketAddr],
    mut bind: impl FnMut(SocketAddr) -> Result<T, BindError>,
) -> Result<Vec<T>, BindError> {
    let mut bound = Vec::new();
    for address in addresses {
        match bind(*address) {
            Ok(socket) => bound.push(socket),
            // A host without IPv6 is served in IPv4 alone.
            Err(error) if address.is_ipv6() && !bound.is_empty() && error.is_missing_family() => {
                tracing::info!(%error, "continuing without IPv6");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(bound)
}
