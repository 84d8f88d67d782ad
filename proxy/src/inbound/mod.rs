//! From other workloads' proxies to the application.

mod allowed;
mod capture;
mod http;
mod opaque;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use fsm_proxy_config::{Snapshot, SpiffeId};
use tokio_rustls::TlsAcceptor;

use crate::accept::Accepted;
use crate::context::Context;
use crate::metrics::Direction;
use crate::serve::serve_http2;
use crate::stream::{Intake, reset};
use crate::tls::established_peer;

pub use allowed::Allowed;
pub use capture::{Captures, READY_PORT, connection as captured};
use http::Inbound;

/// Another proxy, on one connection.
pub struct Caller {
    /// From its verified certificate.
    identity: SpiffeId,
    /// `ns/name` of its service account, for metrics.
    name: String,
    /// The address of ours that it called.
    called: IpAddr,
}

/// Serves one connection of another proxy.
pub async fn connection(context: Arc<Context>, accepted: Accepted) {
    let Accepted { stream, peer, permit: _permit } = accepted;
    context.tls.issued().await;
    let config = match context.tls.server_config() {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(%peer, %error, "a mesh connection is refused");
            context.metrics.refused(Direction::Inbound, "not_ready");
            return reset(stream);
        }
    };
    let called = stream.local_addr().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip().to_canonical());
    let handshake =
        tokio::time::timeout(context.limits.handshake_timeout, TlsAcceptor::from(config).accept(Intake::new(stream)));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%peer, %error, "a mesh connection is refused");
            return context.metrics.handshakes_failed.add(1);
        }
        Err(_elapsed) => return context.metrics.handshakes_failed.add(1),
    };
    let _open = context.metrics.mesh_inbound.open();
    let identity = match established_peer(stream.get_ref().1.peer_certificates(), SystemTime::now()) {
        Ok(identity) => identity,
        Err(error) => {
            tracing::info!(%peer, %error, "a mesh connection is refused");
            return context.metrics.handshakes_failed.add(1);
        }
    };
    let name = format!("{}/{}", identity.namespace(), identity.service_account());
    let caller = Arc::new(Caller { identity, name, called });
    let answer = Inbound::new(Arc::clone(&context), caller);
    serve_http2(stream, answer, &context.limits, &context.drain).await;
}

/// Where the application listens on `port`.
///
/// Only ports that a Service leads to are dialled on the loopback address, as applications listen there for
/// themselves too.
fn application(context: &Context, snapshot: &Snapshot, caller: &Caller, port: u16) -> SocketAddr {
    let declared = snapshot.workload().ports.iter().any(|one| one.port == port);
    let ip = if declared && !snapshot.settings().dial_pod_ip {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        context.pod_ip.unwrap_or(caller.called)
    };
    SocketAddr::new(ip, port)
}
