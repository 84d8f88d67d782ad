//! One listener: accepts, does TLS if asked, and serves HTTP until told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::BodyError;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head must be there after this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent HTTP/2 peer is asked for a sign of life this often, and given up if it doesn't answer in the second time.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Requests under way have this long to end when the controller stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a listener can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "port {port} ({purpose}) is in use: stop the process that holds it, or choose another address with --{flag}"
    )]
    InUse { port: u16, purpose: &'static str, flag: &'static str },
    #[error("{address} ({purpose}) can't be opened: {source}; choose another address with --{flag}")]
    Other { address: SocketAddr, purpose: &'static str, flag: &'static str, source: std::io::Error },
}

/// What a listener speaks.
#[derive(Clone)]
pub enum Protocol {
    /// HTTP/1.1 or HTTP/2 in plain text.
    Plain,
    /// HTTP/1.1 or HTTP/2 over TLS, by ALPN.
    Tls(Arc<rustls::ServerConfig>),
}

/// Who is at the other end; in the extensions of every request.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    pub remote: SocketAddr,
    /// The peer's verified certificate chain, leaf first; empty if it sent none.
    pub certificates: Arc<Vec<CertificateDer<'static>>>,
}

/// Answers requests.
pub trait Handler<B>: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<B>> + Send;
}

/// A listener that is open but doesn't answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    purpose: &'static str,
}

/// Opens a listener. `purpose` and `flag` are for the message if that can't be done.
pub async fn bind(address: SocketAddr, purpose: &'static str, flag: &'static str) -> Result<Bound, BindError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Bound { listener, purpose }),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(BindError::InUse { port: address.port(), purpose, flag })
        }
        Err(source) => Err(BindError::Other { address, purpose, flag, source }),
    }
}

impl Bound {
    /// The address it listens on.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then lets requests under way end for a short time.
    pub async fn serve<B, H>(self, protocol: Protocol, handler: H, stop: CancellationToken)
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
        H: Handler<B>,
    {
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => {
                    let task =
                        connection(stream, remote, protocol.clone(), handler.clone(), stop.clone(), self.purpose);
                    connections.spawn(task);
                }
                Err(error) => {
                    // Out of file descriptors, most likely: give others time to end.
                    tracing::warn!(purpose = self.purpose, %error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        connections.close();
        if timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::debug!(purpose = self.purpose, open = connections.len(), "leaving connections that don't end");
        }
    }
}

async fn connection<B, H>(
    stream: TcpStream,
    remote: SocketAddr,
    protocol: Protocol,
    handler: H,
    stop: CancellationToken,
    purpose: &'static str,
) where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
    H: Handler<B>,
{
    // Small messages that matter now: never wait to fill a packet.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(purpose, %remote, %error, "can't set TCP_NODELAY");
    }
    match protocol {
        Protocol::Plain => {
            let info = ConnectionInfo { remote, certificates: Arc::default() };
            serve_http(stream, info, handler, stop, purpose).await;
        }
        Protocol::Tls(config) => match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let certificates = Arc::new(certificates.iter().cloned().map(CertificateDer::into_owned).collect());
                serve_http(stream, ConnectionInfo { remote, certificates }, handler, stop, purpose).await;
            }
            Ok(Err(error)) => tracing::debug!(purpose, %remote, %error, "a TLS handshake was refused"),
            Err(_) => tracing::debug!(purpose, %remote, "a TLS handshake took too long"),
        },
    }
}

async fn serve_http<B, H, S>(
    stream: S,
    info: ConnectionInfo,
    handler: H,
    stop: CancellationToken,
    purpose: &'static str,
) where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
    H: Handler<B>,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let remote = info.remote;
    let service = service_fn(move |mut request: Request<Incoming>| {
        let handler = handler.clone();
        request.extensions_mut().insert(info.clone());
        async move { Ok::<_, std::convert::Infallible>(handler.handle(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEPALIVE.0).keep_alive_timeout(KEEPALIVE.1);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(purpose, %remote, %error, "a connection ended with an error");
    }
}
