//! A proxy that is replaced while it runs hands its listening sockets to its successor, so that no connection is refused.
//!
//! The two find each other by an abstract UNIX socket, which belongs to the network namespace and so to the pod.
//!
//! ```text
//!   successor                                     predecessor
//!   Hello { version, workload }      ─────▶       same user, same container, same workload?
//!                                    ◀─────       Offer { version, roles, ready } with the sockets, or Refused { reason }
//!   gets certificate and configuration            serves on
//!   serves; Ready                    ─────▶       takes no more, finishes what is under way, ends
//!   (is told to end: Ended           ─────▶       has nothing more to do with it)
//! ```
//!
//! Both have the very same sockets, so connections that wait in their queues are not lost, and what is registered for a socket
//! in the kernel stays registered. If the successor ends before it says that it is ready, nothing has changed. If it dies after
//! that, without a word, and the predecessor has not ended yet, that one serves again. If the predecessor
//! ends first, the successor serves at once. Nothing but sockets is passed: the successor gets a certificate of its own, and
//! until it has one its predecessor serves.

mod give;
mod take;
mod wire;

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;

use tokio::net::UnixStream;

pub use give::{Giver, Successor};
pub use take::Predecessor;

/// The name of the abstract socket.
pub const NAME: &str = "fsm-proxy/handover";

/// Why there is no handover.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("the handover socket \"{name}\": {source}")]
    Socket { name: String, source: io::Error },
    #[error(
        "the proxy that runs here does not hand over: {0}; end it first, or start with --handover=false once it has ended"
    )]
    Refused(String),
    #[error("the proxy that runs here broke off the handover: {0}; try again")]
    Broken(#[from] io::Error),
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
enum Other {
    /// A process of the same user in the same container, and so one that could take the sockets anyway.
    Trusted,
    Stranger(&'static str),
}

fn address(name: &str) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}

/// Containers of a pod share the network namespace and with it the name, but not the mount namespace.
fn other(stream: &UnixStream) -> io::Result<Other> {
    let credentials = stream.peer_cred()?;
    if credentials.uid() != rustix::process::geteuid().as_raw() {
        return Ok(Other::Stranger("it runs as another user"));
    }
    let Some(pid) = credentials.pid().filter(|pid| *pid > 0) else {
        return Ok(Other::Stranger("it runs in another container"));
    };
    let container = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
    match container(&pid.to_string()) {
        Ok(theirs) if theirs == container("self")? => Ok(Other::Trusted),
        _ => Ok(Other::Stranger("it runs in another container")),
    }
}

#[cfg(test)]
mod tests;
