//! The way out: endpoints, connections to them, and requests on these.

mod balance;
mod dial;
mod http1;
mod http2;
mod overheard;
mod sending;
mod upgrade;
pub mod window;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::{Endpoint, SpiffeId};
use http::{HeaderMap, Method, Request, Response};

use crate::field_names::FieldNames;
use crate::headers;
use crate::limits::Limits;
use crate::metrics::{Failure, Metrics};
use crate::stream::{Body, Tunnel};
use crate::tls::MeshTls;
use crate::workers::Workers;

pub use balance::{
    Balancer, CircuitState, Counted, Entered, InFlight, MemberState, Picked, Pool, Queue, Trial, Watched,
};
pub use dial::{DialError, Dialer};
pub use upgrade::Asking;

/// Too many requests to the service wait for a connection: the word for it.
pub const PENDING_OVERFLOW: &str = "pending_overflow";

/// One place to send to: an address, and the identity that must be proven there (none: plain text, no mesh port).
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The application's own address; mesh connections go to the mesh port of the same host.
    pub application: SocketAddr,
    pub identity: Option<&'a SpiffeId>,
    /// Where a request to it waits for a connection, if that is bounded.
    pub queue: Option<Queue<'a>>,
}

impl<'a> Peer<'a> {
    pub fn of(endpoint: &'a Endpoint) -> Self {
        Self { application: endpoint.address, identity: endpoint.identity.as_ref(), queue: None }
    }

    /// A server without a proxy.
    pub fn plain(application: SocketAddr) -> Self {
        Self { application, identity: None, queue: None }
    }
}

/// Connections to everything that this proxy sends to.
pub struct Upstream {
    dialer: Dialer,
    /// For each worker its own.
    pools: Box<[Pools]>,
    mesh_port: u16,
}

struct Pools {
    http1: Arc<http1::Pool>,
    application: Arc<http1::Pool>,
    http2: http2::Pool,
}

/// A request could not be completed.
pub struct Failed {
    pub error: UpstreamError,
    /// The request, if it may be tried again: nothing of its body was sent, and either the peer has not begun with it
    /// or doing it twice does no harm.
    pub request: Option<Box<Request<Body>>>,
}

/// Why nothing came back from an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("{peer} closed the connection before it answered: {source}")]
    Http1 { peer: SocketAddr, source: hyper::Error },
    #[error("{peer} broke off before it answered: {source}")]
    Http2 { peer: SocketAddr, source: h2::Error },
    #[error("{peer} refused the tunnel: {status}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Tunnel { peer: SocketAddr, status: http::StatusCode, reason: String },
}

impl UpstreamError {
    /// Whether it was the client that broke off: the body of its request did not come to its end, so nobody can answer it.
    pub fn is_of_client(&self) -> bool {
        match self {
            // The stream was reset from here, for want of the rest.
            Self::Http2 { source, .. } => source.is_reset() && !source.is_remote(),
            Self::Http1 { source, .. } => source.is_user(),
            Self::Dial(_) | Self::Tunnel { .. } => false,
        }
    }

    /// Whether no endpoint is to blame, and no other one is asked: too many requests wait for a connection already.
    pub fn is_overflow(&self) -> bool {
        matches!(self, Self::Dial(DialError::Crowded { .. }))
    }

    /// What it counts as.
    pub fn failure(&self) -> Failure {
        match self {
            _ if self.is_of_client() => Failure::GivenUp,
            Self::Dial(DialError::TimedOut { .. }) => Failure::TimedOut,
            _ if self.is_overflow() => Failure::Elsewhere,
            Self::Dial(_) => Failure::Unreachable,
            Self::Http1 { .. } | Self::Http2 { .. } => Failure::Broken,
            Self::Tunnel { .. } => Failure::Elsewhere,
        }
    }

    /// The word for metrics and for the `fsm-denied` header.
    pub fn class(&self) -> &'static str {
        match self {
            _ if self.is_of_client() => "client_broke_off",
            _ if self.is_overflow() => PENDING_OVERFLOW,
            Self::Dial(_) => "upstream_unreachable",
            Self::Http1 { .. } | Self::Http2 { .. } => "upstream_broke_off",
            Self::Tunnel { .. } => "upstream_refused",
        }
    }
}

impl Upstream {
    /// Connections made with `tls`, to the mesh port `mesh_port` of other pods.
    pub fn new(
        tls: MeshTls,
        mesh_port: u16,
        limits: &Limits,
        field_names: FieldNames,
        metrics: &Metrics,
        workers: usize,
    ) -> Self {
        let pools = || Pools {
            http1: http1::Pool::new(limits, true, FieldNames::Lower),
            // What comes from other proxies is HTTP/2, where names have no case.
            application: http1::Pool::new(limits, false, field_names),
            http2: http2::Pool::new(limits, Arc::clone(&metrics.mesh_outbound)),
        };
        Self {
            dialer: Dialer::new(tls, limits.handshake_timeout, Arc::clone(&metrics.dials_failed)),
            pools: (0..workers).map(|_| pools()).collect(),
            mesh_port,
        }
    }

    /// Those of the thread that asks.
    fn pools(&self) -> &Pools {
        self.pools.get(Workers::current()).unwrap_or(&self.pools[0])
    }

    /// Sends a request in the HTTP version that it came in: within the mesh on a shared HTTP/2 connection, else as is.
    pub async fn request(
        &self,
        peer: Peer<'_>,
        timeout: Duration,
        mut request: Box<Request<Body>>,
    ) -> Result<Response<Body>, Failed> {
        if peer.identity.is_none() {
            // Left by an attempt at an endpoint of the mesh.
            headers::strip_internal(request.headers_mut());
        }
        if peer.identity.is_none() && request.version() != http::Version::HTTP_2 {
            // Less often than the other way, and larger: it has a place of its own.
            return Box::pin(self.pools().http1.request(&self.dialer, peer, timeout, request)).await;
        }
        let channel = match self.channel(peer, timeout).await {
            Ok(channel) => channel,
            Err(error) => return Err(Failed { error: error.into(), request: Some(request) }),
        };
        if peer.identity.is_some() {
            let port = http::HeaderValue::from(peer.application.port());
            let version = if request.version() == http::Version::HTTP_2 { "2" } else { "1" };
            request.headers_mut().insert(headers::FSM_PORT, port);
            request.headers_mut().insert(headers::FSM_HTTP_VERSION, http::HeaderValue::from_static(version));
        }
        channel.request(request, peer.application).await
    }

    /// Hands a request of another proxy to the application at `address`, in HTTP/2 if the request says so.
    pub async fn to_application(
        &self,
        address: SocketAddr,
        timeout: Duration,
        request: Box<Request<Body>>,
    ) -> Result<Response<Body>, Failed> {
        if request.version() != http::Version::HTTP_2 {
            return self.pools().application.request(&self.dialer, Peer::plain(address), timeout, request).await;
        }
        self.request(Peer::plain(address), timeout, request).await
    }

    /// Opens a CONNECT tunnel to the application behind a mesh peer, which is `told` something about it.
    pub async fn tunnel(&self, peer: Peer<'_>, timeout: Duration, told: HeaderMap) -> Result<Tunnel, UpstreamError> {
        let channel = self.channel(peer, timeout).await?;
        let request = Request::builder().method(Method::CONNECT).uri(peer.application.to_string());
        let mut request = request.body(()).map_err(|_| DialError::Address(peer.application))?;
        *request.headers_mut() = told;
        channel.connect(request, peer.application).await
    }

    /// A plain TCP connection.
    pub async fn tcp(&self, address: SocketAddr, timeout: Duration) -> Result<tokio::net::TcpStream, DialError> {
        self.dialer.tcp(address, timeout).await
    }

    async fn channel(&self, peer: Peer<'_>, timeout: Duration) -> Result<http2::Channel, DialError> {
        let address = match peer.identity {
            Some(_) => SocketAddr::new(peer.application.ip(), self.mesh_port),
            None => peer.application,
        };
        self.pools().http2.channel(&self.dialer, address, peer, timeout).await
    }

    /// Closes what has been idle for long; to be called now and then.
    pub fn tidy(&self) {
        for pools in &self.pools {
            pools.http1.tidy();
            pools.application.tidy();
            pools.http2.tidy();
        }
    }
}
