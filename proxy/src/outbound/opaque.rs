//! Connections whose bytes are carried as they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::{Connection, Decision, Endpoint, Forward, Snapshot, decide};
use smallvec::SmallVec;
use tokio::net::TcpStream;

use crate::accept::Rewind;
use crate::context::Context;
use crate::metrics::Direction;
use crate::stream::{Tunnel, Until, reset, splice};
use crate::upstream::{DialError, InFlight, Peer, UpstreamError};

/// Endpoints that are tried before a connection is given up.
const ATTEMPTS: usize = 3;

/// Carries one connection to where it was going.
pub async fn connection(context: &Arc<Context>, stream: Rewind<TcpStream>, destination: SocketAddr) {
    let Some(snapshot) = context.snapshots.load_full() else {
        context.metrics.refused(Direction::Outbound, "not_ready");
        return reset(stream);
    };
    let timeout = snapshot.settings().connect_timeout;
    match decide(&snapshot, &Connection::Outbound { destination }, None) {
        Decision::Forward(forward) => to_service(context, snapshot.as_ref(), forward, stream).await,
        Decision::Passthrough(_) => match context.upstream.tcp(destination, timeout).await {
            Ok(upstream) => {
                let _open = context.metrics.plain_outbound.open();
                join(stream, upstream, snapshot.settings().idle_timeout).await;
            }
            Err(error) => unreachable(context, destination, &error.into(), stream),
        },
        Decision::Refuse(refusal) => {
            tracing::info!(%destination, reason = %refusal, "an outbound connection is refused");
            context.metrics.refused(Direction::Outbound, refusal.kind.as_str());
            reset(stream);
        }
        Decision::Allow(_) => reset(stream),
    }
}

/// The way to an endpoint.
enum Leg {
    Mesh(Tunnel),
    Plain(TcpStream),
}

async fn to_service(context: &Arc<Context>, snapshot: &Snapshot, forward: Forward<'_>, stream: Rewind<TcpStream>) {
    let backend = forward.pick_backend(fastrand::u32(..));
    let timeout = snapshot.settings().connect_timeout;
    let mut tried: SmallVec<[SocketAddr; ATTEMPTS]> = SmallVec::new();
    let mut last = None;
    while tried.len() < ATTEMPTS {
        let Some((endpoint, in_flight)) = context.balancer.pick(backend.endpoints, &tried) else { break };
        match leg(context, endpoint, timeout).await {
            Ok(leg) => return carry(context, leg, in_flight, stream, snapshot.settings().idle_timeout).await,
            Err(error) => {
                context.balancer.failed(endpoint.address);
                tried.push(endpoint.address);
                let refused = matches!(error, UpstreamError::Tunnel { .. });
                last = Some((endpoint.address, error));
                if refused {
                    break;
                }
                context.metrics.retries.add(1);
            }
        }
    }
    match last {
        Some((address, error)) => unreachable(context, address, &error, stream),
        None => reset(stream),
    }
}

async fn leg(context: &Context, endpoint: &Endpoint, timeout: Duration) -> Result<Leg, UpstreamError> {
    let peer = Peer { application: endpoint.address, identity: endpoint.identity.as_ref() };
    match peer.identity {
        Some(_) => context.upstream.tunnel(peer, timeout, false).await.map(Leg::Mesh),
        None => context.upstream.tcp(endpoint.address, timeout).await.map(Leg::Plain).map_err(DialError::into),
    }
}

async fn carry(context: &Context, leg: Leg, _in_flight: InFlight, stream: Rewind<TcpStream>, idle: Option<Duration>) {
    match leg {
        Leg::Mesh(tunnel) => {
            let _open = context.metrics.tunnels_outbound.open();
            join(stream, tunnel, idle).await;
        }
        Leg::Plain(upstream) => {
            let _open = context.metrics.plain_outbound.open();
            join(stream, upstream, idle).await;
        }
    }
}

async fn join<T>(stream: Rewind<TcpStream>, upstream: T, idle: Option<Duration>)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + crate::stream::Abort + Unpin,
{
    let until = Until { idle, ..Until::default() };
    if let Err(error) = splice(stream, upstream, until).await {
        tracing::debug!(%error, "an outbound connection broke off");
    }
}

fn unreachable(context: &Context, address: SocketAddr, error: &UpstreamError, stream: Rewind<TcpStream>) {
    tracing::info!(%address, %error, "an outbound connection is refused");
    context.metrics.refused(Direction::Outbound, error.class());
    reset(stream);
}
