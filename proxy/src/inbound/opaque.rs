//! Tunnels from other proxies: opaque connections, and requests that switch to another protocol.

use std::sync::Arc;
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use fsm_proxy_config::{Connection, Decision, decide};

use super::Caller;
use super::http::{Inbound, service};
use crate::account::Account;
use crate::context::Context;
use crate::headers::FSM_UPGRADE;
use crate::metrics::{ConnectionTimer, Direction};
use crate::reply::Reply;
use crate::serve::{Opening, serve_http1};
use crate::stream::{Begun, Until, Way, carry};

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
    let mut account = Account::default();
    let told = head.headers;
    match Box::pin(connect(context, inbound.caller(), port, told, &mut account)).await {
        Ok(Connected { application, timer, idle }) => {
            let open = context.allowed.remember(inbound.caller(), port, None);
            let passed = Some(account.carries(timer.stats(), Way::Response));
            let until = Until { idle, revoked: open.revoked(), passed };
            let Ok(tunnel) = opening.accept() else { return };
            let _open = context.metrics.tunnels_inbound.open();
            let application = Begun { stream: application, head: Bytes::new(), heard: Bytes::new() };
            let carried = carry(application, tunnel, until).await;
            if let Err(error) = carried {
                tracing::debug!(%error, "an inbound connection broke off");
                account.broke_off(&error);
            }
        }
        Err(reply) => {
            account.refused(&reply);
            refuse(opening, reply);
        }
    }
}

/// A tunnel's other end.
struct Connected {
    application: tokio::net::TcpStream,
    timer: ConnectionTimer,
    /// How long it may be idle.
    idle: Option<Duration>,
}

/// The application's side of a tunnel. `told` is what the other proxy said of it.
async fn connect(
    context: &Arc<Context>,
    caller: &Caller,
    port: u16,
    mut told: HeaderMap,
    account: &mut Account,
) -> Result<Connected, Reply> {
    let snapshot = context.snapshots.load_full().ok_or_else(Reply::not_ready)?;
    let service = service(&snapshot, port);
    *account = Account::of_connection(&context.observers, &snapshot, Direction::Inbound, &mut told);
    account.called(&caller.identity, service);
    let connection = Connection::Inbound { port, peer: Some(caller.identity.clone()) };
    if context.own_ports.contains(&port) {
        return Err(super::http::own_port(port));
    }
    let address = super::application(context, &snapshot, caller, port);
    match decide(&snapshot, &connection, None) {
        Decision::Refuse(refusal) => return Err(Reply::refused(&refusal)),
        Decision::Allow(allow) => account.allowed(&allow, address),
        // Never inbound.
        Decision::Forward(_) | Decision::Passthrough(_) => return Err(Reply::not_ready()),
    }
    let timeout = snapshot.settings().connect_timeout;
    let application = context.upstream.tcp(address, timeout).await.map_err(|error| Reply::failed(&error.into()))?;
    let timer = context.metrics.requests(Direction::Inbound, service, &caller.name).connect();
    Ok(Connected { application, timer, idle: snapshot.settings().idle_timeout })
}
