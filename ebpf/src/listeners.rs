//! Listeners of a proxy that ran before its pod was attached. Later ones the kernel reports by itself.

use crate::{
    abi::{AF_INET, AF_INET6, INBOUND_PORT, ListenerKey, OUTBOUND_PORT},
    netns::socket_netns_cookie,
};
use nix::sys::socket::{getsockopt, sockopt};
use std::{
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

/// A listening socket on a capture port.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// The key it is found by, and the one it serves as well unless another listener does.
    pub(crate) keys: (ListenerKey, Option<ListenerKey>),
}

/// The capture listeners of the processes in a cgroup that belong to the namespace with this cookie. Usually none:
/// then it costs reading one empty file.
pub(crate) fn of_cgroup(cgroup: &Path, netns: u64) -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.lines().filter_map(|line| line.parse().ok()) {
        match of_process(pid, netns) {
            Ok(listeners) => found.extend(listeners),
            // Ended meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn of_process(pid: i32, netns: u64) -> io::Result<Vec<Listener>> {
    let process = pidfd_open(pid)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (true, Some(number)) = (target.to_string_lossy().starts_with("socket:"), number) else { continue };
        match pidfd_getfd(&process, number) {
            Ok(socket) => found.extend(capture_listener(socket, netns)),
            // Closed meanwhile.
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// The socket as a capture listener, if it is one.
fn capture_listener(socket: OwnedFd, netns: u64) -> Option<Listener> {
    let listens = getsockopt(&socket.as_fd(), sockopt::AcceptConn).is_ok_and(|listens| listens);
    if !listens || socket_netns_cookie(socket.as_raw_fd()).ok() != Some(netns) {
        return None;
    }
    let v6_only = getsockopt(&socket.as_fd(), sockopt::Ipv6V6Only).unwrap_or(false);
    let socket = TcpListener::from(socket);
    // Fails for what is no TCP socket.
    let address = socket.local_addr().ok()?;
    let port = address.port();
    (port == OUTBOUND_PORT || port == INBOUND_PORT).then(|| Listener { socket, keys: keys(netns, address, v6_only) })
}

/// As the program `listen` decides it.
fn keys(netns: u64, address: SocketAddr, v6_only: bool) -> (ListenerKey, Option<ListenerKey>) {
    let key = |family| ListenerKey { netns, family, port: address.port(), pad: 0 };
    match address.ip().to_canonical() {
        IpAddr::V4(_) => (key(AF_INET), None),
        IpAddr::V6(v6) => (key(AF_INET6), (v6.is_unspecified() && !v6_only).then(|| key(AF_INET))),
    }
}

#[expect(unsafe_code, reason = "libc has no wrapper for pidfd_open")]
fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers in, a descriptor that is ours out.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

#[expect(unsafe_code, reason = "libc has no wrapper for pidfd_getfd")]
fn pidfd_getfd(process: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: as above.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })
}

#[expect(unsafe_code, reason = "takes ownership of a new descriptor")]
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: called with the results of calls that return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
