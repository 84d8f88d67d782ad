//! Connections whose bytes are carried as they are.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use fsm_proxy_config::traffic::{Algorithm, Feedback, hash::key_of};
use fsm_proxy_config::{Connection, Decision, Endpoint, Forward, Refusal, Snapshot, decide};
use smallvec::SmallVec;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::leg::Leg;
use crate::accept::Rewind;
use crate::account::Account;
use crate::context::Context;
use crate::metrics::{ConnectionTimer, Direction, OpenConnection};
use crate::stream::{Abort, Begun, Until, Way, carry, reset, splice};
use crate::upstream::{Counted, DialError, Entered, InFlight, Peer, UpstreamError};

/// Endpoints that are tried before a connection is given up.
const ATTEMPTS: usize = 3;

/// The way to where a connection was going, open.
pub struct Opened {
    leg: Leg,
    _in_flight: Option<(InFlight, Option<Entered>)>,
    _open: OpenConnection,
    timer: ConnectionTimer,
    account: Account,
    idle: Option<Duration>,
}

/// There is no way to where a connection was going.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    #[error("the proxy has no configuration yet")]
    NotReady,
    #[error(transparent)]
    Refused(Refusal),
    #[error("{0} connections to the service are open, and its policy allows no more at once")]
    Overflow(u32),
    #[error("no endpoint of the service is healthy")]
    NobodyLeft,
    #[error("{0}")]
    Unreachable(#[from] UpstreamError),
}

impl Closed {
    /// The word for metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::NotReady => "not_ready",
            Self::Refused(refusal) => refusal.kind.as_str(),
            Self::Overflow(_) => "overflow",
            Self::NobodyLeft => "no_healthy_endpoint",
            Self::Unreachable(error) => error.class(),
        }
    }
}

/// Carries one connection to where it was going.
pub async fn connection(context: &Context, stream: Rewind<TcpStream>, source: IpAddr, destination: SocketAddr) {
    match Box::pin(open(context, source, destination)).await {
        Ok(opened) => opened.carry(stream, Bytes::new()).await,
        Err(closed) => {
            tracing::info!(%destination, reason = %closed, "an outbound connection is refused");
            context.metrics.refused(Direction::Outbound, closed.reason());
            reset(stream);
        }
    }
}

/// Opens the way to `destination`, before any byte is known.
pub async fn open(context: &Context, source: IpAddr, destination: SocketAddr) -> Result<Opened, Closed> {
    let snapshot = context.snapshots.load_full().ok_or(Closed::NotReady)?;
    let mut told = HeaderMap::new();
    let mut account = Account::of_connection(&context.observers, &snapshot, Direction::Outbound, &mut told);
    let opened = match decide(&snapshot, &Connection::Outbound { destination }, None) {
        Decision::Forward(forward) => to_service(context, &snapshot, source, forward, told, &mut account).await,
        Decision::Passthrough(_) => to_destination(context, &snapshot, destination, &mut account).await,
        Decision::Refuse(refusal) => Err(Closed::Refused(refusal)),
        // Never outbound.
        Decision::Allow(_) => Err(Closed::NotReady),
    };
    if let Err(closed) = &opened {
        account.closed(closed.reason(), destination, closed);
    }
    opened
}

async fn to_destination(
    context: &Context,
    snapshot: &Snapshot,
    destination: SocketAddr,
    account: &mut Account,
) -> Result<Opened, Closed> {
    account.passed_through(destination);
    let settings = snapshot.settings();
    let stream = context.upstream.tcp(destination, settings.connect_timeout).await.map_err(UpstreamError::from)?;
    let open = context.metrics.plain_outbound.open();
    Ok(Opened {
        leg: Leg::Plain(stream),
        _in_flight: None,
        _open: open,
        timer: context.metrics.requests(Direction::Outbound, "passthrough", "passthrough").connect(),
        account: std::mem::take(account),
        idle: settings.idle_timeout,
    })
}

async fn to_service(
    context: &Context,
    snapshot: &Snapshot,
    source: IpAddr,
    forward: Forward<'_>,
    told: HeaderMap,
    account: &mut Account,
) -> Result<Opened, Closed> {
    let backend = forward.pick_backend(fastrand::u32(..));
    account.forwarded(&forward.service.name, forward.split, &backend);
    let stats = context.metrics.requests(Direction::Outbound, &forward.service.name, backend.service);
    let key = match &backend.policy.balancing.algorithm {
        Algorithm::ConsistentHash { keys, .. } => key_of(keys, None, Some(source)),
        _ => None,
    };
    let pool = context.balancer.pool(&backend);
    let settings = snapshot.settings();
    let mut tried: SmallVec<[SocketAddr; ATTEMPTS]> = SmallVec::new();
    let most = backend.policy.limits.connections;
    let counted = most.map(|most| pool.enter(Counted::Connections, most).ok_or(Closed::Overflow(most)));
    let counted = counted.transpose().inspect_err(|_| pool.stats().connection_overflow.add(1))?;
    let mut last = Closed::NobodyLeft;
    while tried.len() < ATTEMPTS {
        let Some(picked) = pool.pick(&backend, key, &tried) else { break };
        let begun = pool.measures().then(Instant::now);
        account.sent_to(picked.endpoint);
        match leg(context, picked.endpoint, settings.connect_timeout, &told).await {
            Ok(leg) => {
                let open = match leg {
                    Leg::Mesh(_) => context.metrics.tunnels_outbound.open(),
                    Leg::Plain(_) => context.metrics.plain_outbound.open(),
                };
                if pool.listens() {
                    pool.went(&picked, begun.map(|begun| begun.elapsed()), Feedback::Well);
                }
                return Ok(Opened {
                    leg,
                    _in_flight: Some((picked.in_flight, counted)),
                    _open: open,
                    timer: stats.connect(),
                    account: std::mem::take(account),
                    idle: settings.idle_timeout,
                });
            }
            // The server's policy speaks for all of its replicas.
            Err(UpstreamError::Tunnel { peer, status, reason }) => {
                pool.went(&picked, None, Feedback::of(status, None));
                return Err(UpstreamError::Tunnel { peer, status, reason }.into());
            }
            Err(error) => {
                stats.failed(error.failure());
                pool.unreachable(&picked);
                pool.went(&picked, None, Feedback::Unreachable);
                tried.push(picked.endpoint.address);
                context.metrics.retries.add(1);
                account.retried();
                last = error.into();
            }
        }
    }
    Err(last)
}

/// `told` is what the endpoint's proxy is told of the connection.
async fn leg(
    context: &Context,
    endpoint: &Endpoint,
    timeout: Duration,
    told: &HeaderMap,
) -> Result<Leg, UpstreamError> {
    let peer = Peer::of(endpoint);
    match peer.identity {
        Some(_) => context.upstream.tunnel(peer, timeout, told.clone()).await.map(Leg::Mesh),
        None => context.upstream.tcp(endpoint.address, timeout).await.map(Leg::Plain).map_err(DialError::into),
    }
}

impl Opened {
    /// Waits for the first bytes from the other end. Nothing is lost if the wait is given up. Empty: there are none.
    pub async fn first_bytes(&mut self) -> std::io::Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(4 * 1024);
        self.leg.read_buf(&mut bytes).await?;
        Ok(bytes.freeze())
    }

    /// Joins the application's connection to it; `heard` was read from the other end already.
    pub async fn carry(mut self, stream: Rewind<TcpStream>, heard: Bytes) {
        let passed = Some(self.account.carries(self.timer.stats(), Way::Request));
        let until = Until { idle: self.idle, passed, ..Until::default() };
        let carried = match self.leg {
            Leg::Mesh(tunnel) => {
                let (head, stream) = stream.into_parts();
                carry(Begun { stream, head, heard }, tunnel, until).await
            }
            Leg::Plain(other) => splice(stream, Rewind::new(heard, other), until).await,
        };
        if let Err(error) = carried {
            tracing::debug!(%error, "an outbound connection broke off");
            self.account.broke_off(&error);
        }
    }

    /// Gives it up: it was not needed after all.
    pub fn close(mut self) {
        self.leg.abort();
        self.account.forget();
    }
}
