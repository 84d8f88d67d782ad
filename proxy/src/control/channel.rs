//! One gRPC connection to the controller: TCP, TLS with the identity of the controller verified, HTTP/2.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service;

use super::Environment;
use crate::tls::{self, Identity};

/// A controller that does not answer a ping for this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection, as the generated clients want it. The connection closes when it is dropped.
#[derive(Debug)]
pub(super) struct Channel {
    requests: SendRequest<Body>,
    connection: JoinHandle<()>,
}

/// Why the controller is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("controller {address} cannot be reached: {source}; is fsm-controller running?")]
    Dial { address: String, source: std::io::Error },
    #[error("controller {address} does not answer within {timeout:?}")]
    Timeout { address: String, timeout: Duration },
    #[error(
        "controller {address} is not trusted: {source}; if the mesh's root certificate was replaced, restart this pod"
    )]
    Tls { address: String, source: std::io::Error },
    #[error("controller {address} does not speak HTTP/2: {source}")]
    Http2 { address: String, source: hyper::Error },
    #[error("TLS cannot be configured: {0}")]
    Config(#[from] rustls::Error),
}

impl Channel {
    /// Connects, showing `identity` if there is one.
    pub async fn connect(environment: &Environment, identity: Option<&Identity>) -> Result<Self, ConnectError> {
        let timeout = environment.timeout;
        let late = |_| ConnectError::Timeout { address: environment.controller.clone(), timeout };
        tokio::time::timeout(timeout, Self::dial(environment, identity)).await.map_err(late)?
    }

    async fn dial(environment: &Environment, identity: Option<&Identity>) -> Result<Self, ConnectError> {
        let address = || environment.controller.clone();
        let trust = identity.map_or(&environment.trust_anchors, Identity::trust).clone();
        let config = tls::client_config(trust, environment.controller_identity.clone(), identity)?;
        let dialled = TcpStream::connect(environment.controller.as_str()).await;
        let tcp = dialled.map_err(|source| ConnectError::Dial { address: address(), source })?;
        // Acknowledgements are small and must not wait.
        let _ = tcp.set_nodelay(true);
        let tls = TlsConnector::from(Arc::new(config)).connect(server_name(&environment.controller), tcp).await;
        let tls = tls.map_err(|source| ConnectError::Tls { address: address(), source })?;
        let handshake = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(tls))
            .await;
        let (requests, connection) = handshake.map_err(|source| ConnectError::Http2 { address: address(), source })?;
        let connection = tokio::spawn(async move {
            // Its end, good or bad, is seen by whoever waits for an answer on it.
            let _ = connection.await;
        });
        Ok(Self { requests, connection })
    }
}

/// The name for the TLS handshake. The identity is verified by its SPIFFE ID, so the name only serves as SNI.
fn server_name(controller: &str) -> ServerName<'static> {
    let host = controller.rsplit_once(':').map_or(controller, |(host, _)| host).trim_matches(['[', ']']);
    let fallback = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
    ServerName::try_from(host.to_owned()).unwrap_or(fallback)
}

/// The origin of requests.
pub(super) fn origin(environment: &Environment) -> Uri {
    let uri = Uri::builder().scheme("https").authority(environment.controller.as_str()).path_and_query("/").build();
    uri.unwrap_or_else(|_| Uri::from_static("https://fsm-controller/"))
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.requests.send_request(request))
    }
}
