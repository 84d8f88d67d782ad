//! Sockets that another process has bound, and what each is for.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// What a proxy listens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Outbound,
    Capture,
    Mesh,
    Metrics,
    Probes,
    Names,
    Admin,
    Handover,
}

impl Role {
    /// For messages.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Outbound => "connections of the application",
            Self::Capture => "captured inbound connections",
            Self::Mesh => "connections of other proxies",
            Self::Metrics => "metrics",
            Self::Probes => "probes",
            Self::Names => "queries for names",
            Self::Admin => "the admin port",
            Self::Handover => "a successor",
        }
    }
}

/// Sockets to take instead of binding new ones. Those that nobody takes are closed with it.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(Role, OwnedFd)>);

impl Inherited {
    pub fn new(sockets: Vec<(Role, OwnedFd)>) -> Self {
        Self(sockets)
    }

    /// The listener for `role` at exactly `address`.
    pub fn tcp(&mut self, role: Role, address: SocketAddr) -> Option<TcpListener> {
        let found =
            |socket: OwnedFd| Some(TcpListener::from(socket)).filter(|one| one.local_addr().ok() == Some(address));
        self.find(role, found)
    }

    /// The UDP socket for `role` at exactly `address`.
    pub fn udp(&mut self, role: Role, address: SocketAddr) -> Option<UdpSocket> {
        let found =
            |socket: OwnedFd| Some(UdpSocket::from(socket)).filter(|one| one.local_addr().ok() == Some(address));
        self.find(role, found)
    }

    /// The one socket for `role`, of any kind.
    pub fn any(&mut self, role: Role) -> Option<OwnedFd> {
        self.find(role, Some)
    }

    fn find<T>(&mut self, role: Role, found: impl Fn(OwnedFd) -> Option<T>) -> Option<T> {
        let (index, socket) = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, (one, _))| *one == role)
            .find_map(|(index, (_, socket))| Some((index, found(socket.try_clone().ok()?)?)))?;
        self.0.swap_remove(index);
        Some(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_role_and_address_once() {
        let [one, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let (address, udp) = (other.local_addr().unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let names = udp.local_addr().unwrap();
        let mut inherited =
            Inherited::new(vec![(Role::Metrics, one.into()), (Role::Metrics, other.into()), (Role::Names, udp.into())]);
        assert!(inherited.tcp(Role::Mesh, address).is_none());
        assert_eq!(inherited.tcp(Role::Metrics, address).unwrap().local_addr().unwrap(), address);
        assert!(inherited.tcp(Role::Metrics, address).is_none());
        assert!(inherited.udp(Role::Names, names).is_some());
        assert!(inherited.any(Role::Metrics).is_some());
        assert!(inherited.any(Role::Metrics).is_none());
    }
}
