//! Network namespaces: the cookie under which the programs know one.

use crate::error::InterceptError;
use nix::sched::{CloneFlags, setns};
use std::{
    io,
    net::UdpSocket,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Runs `work` inside a network namespace. Namespaces belong to threads, so it runs on one of its own.
pub(crate) fn inside<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        entered.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}

/// The namespace's cookie: a number the kernel never gives twice.
pub(crate) fn cookie(netns: BorrowedFd<'_>) -> Result<u64, InterceptError> {
    let asked = inside(netns, || {
        let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
        socket_netns_cookie(socket.as_raw_fd())
    });
    asked.map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => {
            InterceptError::NotPermitted { what: "entering the pod's network namespace".into(), source }
        }
        Some(libc::ENOPROTOOPT) => InterceptError::MissingFeature {
            feature: "SO_NETNS_COOKIE",
            needed_for: "telling pods apart",
            since: "5.14",
            source,
        },
        _ => InterceptError::Netns(source),
    })
}

pub(crate) fn socket_netns_cookie(socket: i32) -> io::Result<u64> {
    cookie_option(socket, libc::SO_NETNS_COOKIE)
}

/// The socket's own cookie.
#[cfg(test)]
pub(crate) fn socket_cookie(socket: i32) -> io::Result<u64> {
    cookie_option(socket, libc::SO_COOKIE)
}

#[expect(unsafe_code, reason = "no wrapper knows these options")]
fn cookie_option(socket: i32, option: i32) -> io::Result<u64> {
    let (mut cookie, mut size) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the kernel writes at most `size` bytes to `cookie`.
    let result = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, option, (&raw mut cookie).cast(), &raw mut size) };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// A new, empty namespace, which lives as long as the file.
pub(crate) fn fresh() -> io::Result<std::fs::File> {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            std::fs::File::open("/proc/thread-self/ns/net")
        });
        made.join().unwrap_or_else(|_| Err(io::Error::other("the thread making the namespace panicked")))
    })
}
