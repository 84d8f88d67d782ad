//! Listening sockets, and the loop that takes connections from them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Inherited, Role};
use crate::drain::Drain;
use crate::workers::Workers;

const BACKLOG: i32 = 4096;
/// How long accepting rests when the process has no file descriptors left.
const REST: Duration = Duration::from_millis(50);

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {purpose}: {source}")]
pub struct BindError {
    pub address: SocketAddr,
    pub purpose: &'static str,
    pub source: io::Error,
}

impl BindError {
    /// Whether the host does not have this family of addresses.
    pub fn is_missing_family(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
    }
}

/// One bound listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    purpose: &'static str,
}

/// One connection that was taken, and its place in the limit of open connections.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    /// Held as long as the connection is open.
    pub permit: OwnedSemaphorePermit,
}

/// Binds `address`, unless its socket is inherited. IPv6 sockets take IPv6 only, so that both families can be bound.
pub fn bind(address: SocketAddr, role: Role, inherited: &mut Inherited) -> Result<Listener, BindError> {
    let purpose = role.purpose();
    let inherited = inherited.tcp(role, address);
    let open = || {
        if let Some(socket) = inherited {
            socket.set_nonblocking(true)?;
            return Ok(Listener { socket: TcpListener::from_std(socket)?, address, purpose });
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Listener { socket, address, purpose })
    };
    open().map_err(|source| BindError { address, purpose, source })
}

/// Binds `address` for datagrams, unless its socket is inherited.
pub fn bind_udp(address: SocketAddr, role: Role, inherited: &mut Inherited) -> Result<UdpSocket, BindError> {
    let inherited = inherited.udp(role, address);
    let open = || {
        let socket = match inherited {
            Some(socket) => socket,
            None => std::net::UdpSocket::bind(address)?,
        };
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    open().map_err(|source| BindError { address, purpose: role.purpose(), source })
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Listener {
    /// The bound address, with the port that the kernel chose if none was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections until the drain begins, and serves each in a task of its own that the drain waits for: on one
    /// worker after the other, as they come.
    ///
    /// When `slots` are used up, connections wait in the kernel's backlog.
    pub async fn serve<F, Fut>(&self, slots: Arc<Semaphore>, drain: Drain, workers: Workers, serve: F)
    where
        F: Fn(Accepted) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut turn = 0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.started() => break,
                accepted = self.accept(&slots) => accepted,
            };
            let Some(accepted) = accepted else { continue };
            turn = (turn + 1) % workers.count();
            if turn == 0 {
                drain.spawn(serve(accepted));
                continue;
            }
            let (serve, Accepted { stream, peer, permit }) = (serve.clone(), accepted);
            let moved = stream.into_std();
            workers.spawn(turn, drain.work(), async move {
                match moved.and_then(TcpStream::from_std) {
                    Ok(stream) => serve(Accepted { stream, peer, permit }).await,
                    Err(error) => tracing::warn!(%peer, %error, "a connection is lost on its way to another thread"),
                }
            });
        }
    }

    async fn accept(&self, slots: &Arc<Semaphore>) -> Option<Accepted> {
        let permit = Arc::clone(slots).acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((stream, peer)) => {
                // A connection that is closed by now shows it at the first read.
                let _ = stream.set_nodelay(true);
                Some(Accepted { stream, peer, permit })
            }
            Err(error) if is_of_one_connection(&error) => None,
            Err(error) => {
                tracing::warn!(purpose = self.purpose, %error, "cannot accept connections; raise the limit of open files");
                tokio::time::sleep(REST).await;
                None
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
