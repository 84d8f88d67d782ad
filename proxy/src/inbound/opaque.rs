//! Tunnels from other proxies: opaque connections, and requests that switch to another protocol.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use ::http::request::Parts;
use bytes::Bytes;
use fsm_proxy_config::{Connection, Decision, decide};

use super::Caller;
use super::http::Inbound;
use crate::context::Context;
use crate::headers::FSM_UPGRADE;
use crate::metrics::Direction;
use crate::reply::Reply;
use crate::serve::{Opening, serve_http1};
use crate::stream::{Begun, Until, carry};

/// Serves one CONNECT stream.
pub async fn tunnel(inbound: &Inbound, head: Parts, opening: Opening) {
    let context = inbound.context();
    let refuse = |opening: Opening, reply: Reply| {
        context.metrics.refused(Direction::Inbound, reply.reason);
        tracing::debug!(reason = %reply.text, "a tunnel is refused");
        opening.refuse(reply);
    };
    let Some(port) = head.uri.port_u16() else {
        let text = format!("\"{}\" is no target of a tunnel: expected address:port", head.uri);
        return refuse(opening, Reply::new(StatusCode::BAD_REQUEST, "no_port", text));
    };
    if head.headers.contains_key(FSM_UPGRADE) {
        // Carries HTTP, and is judged as HTTP: each request in it by its own head, which is what the application gets.
        let Ok(tunnel) = opening.accept() else { return };
        return Box::pin(serve_http1(tunnel, inbound.for_port(port), None, &context.limits, &context.drain)).await;
    }
    match Box::pin(connect(context, inbound.caller(), port)).await {
        Ok((application, idle)) => {
            let open = context.allowed.remember(inbound.caller(), port, None);
            let until = Until { idle, revoked: open.revoked() };
            let Ok(tunnel) = opening.accept() else { return };
            let _open = context.metrics.tunnels_inbound.open();
            let application = Begun { stream: application, head: Bytes::new(), heard: Bytes::new() };
            if let Err(error) = carry(application, tunnel, until).await {
                tracing::debug!(%error, "an inbound connection broke off");
            }
        }
        Err(reply) => refuse(opening, reply),
    }
}

/// The application's side of a tunnel, and how long it may be idle.
async fn connect(
    context: &Arc<Context>,
    caller: &Caller,
    port: u16,
) -> Result<(tokio::net::TcpStream, Option<Duration>), Reply> {
    let snapshot = context.snapshots.load_full().ok_or_else(Reply::not_ready)?;
    let connection = Connection::Inbound { port, peer: Some(caller.identity.clone()) };
    if context.own_ports.contains(&port) {
        return Err(super::http::own_port(port));
    }
    if let Decision::Refuse(refusal) = decide(&snapshot, &connection, None) {
        return Err(Reply::refused(&refusal));
    }
    let address = super::application(context, &snapshot, caller, port);
    let timeout = snapshot.settings().connect_timeout;
    match context.upstream.tcp(address, timeout).await {
        Ok(stream) => Ok((stream, snapshot.settings().idle_timeout)),
        Err(error) => Err(Reply::failed(&error.into())),
    }
}
