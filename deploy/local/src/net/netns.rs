//! A network namespace held open by a file descriptor, without a name in the file system.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream};

/// A network namespace. It lives as long as a descriptor, a socket or a process in it.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// Makes a new, empty namespace. The calling thread stays where it is.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let ns = File::open("/proc/thread-self/ns/net")?;
            // Containers may run as any user; ports below 1024 are nobody else's in a namespace of its own.
            std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
            Ok(Self { fd: Arc::new(OwnedFd::from(ns)) })
        })?
    }

    /// Runs `work` on a thread inside the namespace and waits for it. Sockets made there belong to the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?
    }

    /// Connects from inside the namespace. Only the socket's creation happens on a thread of its own.
    pub async fn dial(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = self.run(|| socket(family, SockType::Stream, flags, None))??;
        let stream = TcpSocket::from_std_stream(StdStream::from(fd)).connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A thread's namespaces are its own, so changing them is safe only on a thread that ends afterwards.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("fsm-netns".into()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("the thread that entered the namespace panicked"))
    })
}
