//! Where a redirected connection was going.

use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// How the proxy learns the destination that the application dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalDst {
    /// The kernel tells it (`SO_ORIGINAL_DST`, answered by the interception programs or by netfilter).
    Kernel,
    /// Every connection was going here: for a proxy that stands in front of one destination.
    Fixed(SocketAddr),
}

/// Why the destination of a connection is not known.
#[derive(Debug, thiserror::Error)]
pub enum OriginalDstError {
    #[error(
        "no original destination for the connection from {peer}: it was not redirected by the mesh's interception ({source})"
    )]
    Unknown { peer: SocketAddr, source: io::Error },
    #[error("the connection from {peer} was made to the proxy's own port {port}; dial the service instead")]
    Itself { peer: SocketAddr, port: u16 },
}

impl OriginalDst {
    /// The destination of a connection that was accepted at the outbound listener.
    pub fn of(self, stream: &TcpStream) -> Result<SocketAddr, OriginalDstError> {
        match self {
            Self::Fixed(destination) => Ok(destination),
            Self::Kernel => {
                let unknown = |source| OriginalDstError::Unknown {
                    peer: stream.peer_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0))),
                    source,
                };
                let local = stream.local_addr().map_err(unknown)?;
                let destination = from_kernel(stream, local).map_err(unknown)?;
                if destination == local {
                    let peer = stream.peer_addr().map_err(unknown)?;
                    return Err(OriginalDstError::Itself { peer, port: local.port() });
                }
                Ok(destination)
            }
        }
    }
}

fn from_kernel(stream: &TcpStream, local: SocketAddr) -> io::Result<SocketAddr> {
    let socket = SockRef::from(stream);
    let destination =
        if local.ip().to_canonical().is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() }?;
    let destination = destination
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel answered with no IP address"))?;
    Ok(SocketAddr::new(destination.ip().to_canonical(), destination.port()))
}
