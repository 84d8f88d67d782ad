//! Connections to endpoints: TCP, and mutual TLS within the mesh.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::SpiffeId;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::metrics::Counter;
use crate::stream::Intake;
use crate::tls::{MeshTls, NotReady};

/// A peer that is gone without a word is noticed after about this long.
const DEAD_AFTER: Duration = Duration::from_secs(30);

/// Opens connections.
pub struct Dialer {
    tls: MeshTls,
    handshake_timeout: Duration,
    /// Handshakes that came to nothing.
    failed: Arc<Counter>,
}

/// An endpoint could not be reached. Nothing was sent to it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: SocketAddr, source: Arc<io::Error> },
    #[error("{address} did not answer within {} ms", timeout.as_millis())]
    TimedOut { address: SocketAddr, timeout: Duration },
    #[error("no mutual TLS with {address}: {source}")]
    NotReady { address: SocketAddr, source: Arc<NotReady> },
    #[error("{address} did not prove to be {identity}: {source}")]
    Identity { address: SocketAddr, identity: SpiffeId, source: Arc<io::Error> },
    #[error("{address} did not begin HTTP/2: {source}")]
    Http2 { address: SocketAddr, source: Arc<h2::Error> },
    #[error("{address} did not begin HTTP/1.1: {source}")]
    Http1 { address: SocketAddr, source: Arc<hyper::Error> },
    #[error("{0} cannot be written as the target of a tunnel")]
    Address(SocketAddr),
    #[error("{most} requests to the service wait for a connection, and its policy allows no more at once")]
    Crowded { most: u32 },
}

impl Dialer {
    /// Counts handshakes that come to nothing in `failed`.
    pub fn new(tls: MeshTls, handshake_timeout: Duration, failed: Arc<Counter>) -> Self {
        Self { tls, handshake_timeout, failed }
    }

    /// A plain connection.
    pub async fn tcp(&self, address: SocketAddr, timeout: Duration) -> Result<TcpStream, DialError> {
        let connect_error = |source| DialError::Connect { address, source: Arc::new(source) };
        let stream = match tokio::time::timeout(timeout, TcpStream::connect(address)).await {
            Ok(stream) => stream.map_err(connect_error)?,
            Err(_elapsed) => return Err(DialError::TimedOut { address, timeout }),
        };
        stream.set_nodelay(true).map_err(connect_error)?;
        Ok(stream)
    }

    /// A connection whose peer has proven to be `identity`, and that is watched for peers gone without a word.
    pub async fn mesh(
        &self,
        address: SocketAddr,
        identity: &SpiffeId,
        timeout: Duration,
    ) -> Result<TlsStream<Intake<TcpStream>>, DialError> {
        let not_ready = |source| DialError::NotReady { address, source: Arc::new(source) };
        self.tls.issued().await;
        let config = self.tls.client_config(identity).map_err(not_ready)?;
        let stream = self.tcp(address, timeout).await?;
        let socket = SockRef::from(&stream);
        let keepalive = TcpKeepalive::new().with_time(DEAD_AFTER / 2).with_interval(DEAD_AFTER / 6).with_retries(3);
        // Without these the connection works as well, only its silent death is noticed later.
        let _ = socket.set_tcp_keepalive(&keepalive);
        let _ = socket.set_tcp_user_timeout(Some(DEAD_AFTER));
        let name = ServerName::IpAddress(address.ip().into());
        let handshake = TlsConnector::from(config).connect(name, Intake::new(stream));
        let ended = tokio::time::timeout(self.handshake_timeout, handshake).await;
        if !matches!(ended, Ok(Ok(_))) {
            self.failed.add(1);
        }
        match ended {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => {
                Err(DialError::Identity { address, identity: identity.clone(), source: Arc::new(source) })
            }
            Err(_elapsed) => Err(DialError::TimedOut { address, timeout: self.handshake_timeout }),
        }
    }
}
