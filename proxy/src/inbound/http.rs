//! Requests from other proxies. Each is judged for itself, so a new policy holds on open connections too.

use std::sync::Arc;
use std::time::Instant;

use ::http::request::Parts;
use ::http::{HeaderMap, Request, Response, StatusCode, Version};
use fsm_proxy_config::{Allow, Connection, Decision, Protocol, RequestHead, Snapshot, decide};

use super::Caller;
use crate::account::Account;
use crate::context::Context;
use crate::headers::{self, FSM_HTTP_VERSION, FSM_PORT};
use crate::metrics::Direction;
use crate::reply::Reply;
use crate::serve::{Answer, Opening};
use crate::stream::{Body, Until, Way, with_head};
use crate::upstream::{Asking, Failed, Peer, UpstreamError};

/// Answers the requests of one other proxy.
#[derive(Clone)]
pub struct Inbound {
    context: Arc<Context>,
    caller: Arc<Caller>,
    /// The application's port, if the connection is for one only.
    port: Option<u16>,
}

/// The request is for a port of the proxy, not of the application.
pub fn own_port(port: u16) -> Reply {
    let text = format!("Access denied: port {port} is the proxy's own and is not served to the mesh");
    Reply::new(StatusCode::FORBIDDEN, "own_port", text)
}

impl Inbound {
    pub fn new(context: Arc<Context>, caller: Arc<Caller>) -> Self {
        Self { context, caller, port: None }
    }

    /// The same caller, in a tunnel to one port.
    pub fn for_port(&self, port: u16) -> Self {
        Self { port: Some(port), ..self.clone() }
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    async fn answer(&self, mut request: Box<Request<Body>>, account: &mut Account) -> Result<Response<Body>, Reply> {
        let start = Instant::now();
        let snapshot = self.context.snapshots.load_full().ok_or_else(Reply::not_ready)?;
        let port = self.port(request.headers());
        let http2 = port.as_ref().is_ok_and(|port| speaks_http2(&snapshot, *port, request.headers()));
        let judged = with_head(&mut request, |parts| {
            // The head as the application will see it, Host included, is the head that is judged.
            let upgrade = headers::for_application(parts);
            *account = Account::of_request(&self.context.observers, &snapshot, Direction::Inbound, start, parts);
            let (place, port) = (self.context.place(Direction::Inbound)?, port?);
            account.called(&self.caller.identity, service(&snapshot, port));
            let allow = self.judge(&snapshot, port, parts)?;
            let open = upgrade.then(|| self.context.allowed.remember(&self.caller, port, Some(parts)));
            Ok((place, port, allow, open))
        });
        let (place, port, allow, open) = judged?;
        let service = service(&snapshot, port);
        let application = super::application(&self.context, &snapshot, &self.caller, port);
        account.allowed(&allow, application);
        let mut timer = self.context.metrics.requests(Direction::Inbound, service, &self.caller.name).begin(start);
        account.receives(timer.stats(), request.body_mut());
        let timeout = snapshot.settings().connect_timeout;
        let upstream = &self.context.upstream;
        let answered = if let Some(open) = open {
            let passed = Some(account.carries(timer.stats(), Way::Request));
            let until = Until { idle: snapshot.settings().idle_timeout, revoked: open.revoked(), passed };
            let peer = Peer::plain(application);
            let switched = Box::pin(upstream.switch(peer, timeout, Asking::of(request, until), http2)).await;
            switched.map_err(|(error, _)| error).map(|mut response| {
                response.body_mut().attach(open);
                response
            })
        } else {
            if http2 && self.port.is_none() {
                *request.version_mut() = Version::HTTP_2;
            }
            match upstream.to_application(application, timeout, request).await {
                // The application ended a connection before it began with this request.
                Err(Failed { error: UpstreamError::Http2 { .. }, request: Some(again) }) => {
                    self.context.metrics.retries.add(1);
                    timer.retried();
                    account.retried();
                    Box::pin(upstream.to_application(application, timeout, again)).await.map_err(|failed| failed.error)
                }
                answered => answered.map_err(|failed| failed.error),
            }
        };
        let mut response = answered.map_err(|error| {
            timer.failed(error.failure());
            Reply::failed(&error)
        })?;
        timer.answered(response.status());
        let account = std::mem::take(account).answers(timer.stats(), &mut response);
        response.body_mut().attach((account, timer, place));
        Ok(response)
    }

    fn port(&self, headers: &HeaderMap) -> Result<u16, Reply> {
        let named = || headers.get(FSM_PORT).and_then(|port| port.to_str().ok()).and_then(|port| port.parse().ok());
        let port = self.port.or_else(named).ok_or_else(|| {
            let text = "a request within the mesh must say in the header fsm-port which port it is for";
            Reply::new(StatusCode::BAD_REQUEST, "no_port", text)
        })?;
        if self.context.own_ports.contains(&port) {
            return Err(own_port(port));
        }
        Ok(port)
    }

    fn judge<'s>(&self, snapshot: &'s Snapshot, port: u16, parts: &Parts) -> Result<Allow<'s>, Reply> {
        let connection = Connection::Inbound { port, peer: Some(self.caller.identity.clone()) };
        match decide(snapshot, &connection, Some(&RequestHead::of(parts))) {
            Decision::Refuse(refusal) => Err(Reply::refused(&refusal)),
            Decision::Allow(allow) => Ok(allow),
            // Never inbound.
            Decision::Forward(_) | Decision::Passthrough(_) => Err(Reply::not_ready()),
        }
    }
}

/// Whether the application is spoken to in HTTP/2: as its client does, or as declared.
fn speaks_http2(snapshot: &Snapshot, port: u16, headers: &HeaderMap) -> bool {
    match headers.get(FSM_HTTP_VERSION) {
        Some(version) => version == "2",
        None => {
            matches!(snapshot.inbound_protocol(port), Protocol::Http2 | Protocol::Grpc) || headers::is_grpc(headers)
        }
    }
}

/// The service that a port belongs to, for metrics.
pub fn service(snapshot: &Snapshot, port: u16) -> &str {
    let declared = snapshot.workload().ports.iter().find(|one| one.port == port);
    declared.and_then(|one| one.services.first()).map_or("none", String::as_str)
}

impl Answer for Inbound {
    /// Proxies send each other the HTTP/1.1 form, in tunnels.
    const WEBSOCKETS: bool = false;

    async fn request(self, request: Box<Request<Body>>) -> Response<Body> {
        let grpc = headers::is_grpc(request.headers());
        let mut account = Account::default();
        match self.answer(request, &mut account).await {
            Ok(mut response) => {
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    headers::strip_hop_by_hop(response.headers_mut());
                }
                // Only proxies say so.
                response.headers_mut().remove(headers::FSM_DENIED);
                response
            }
            Err(reply) => {
                self.context.metrics.refused(Direction::Inbound, reply.reason);
                account.refused(&reply);
                tracing::debug!(caller = %self.caller.name, reason = %reply.text, "a request is refused");
                reply.into_response(grpc)
            }
        }
    }

    async fn connect(self, head: Parts, opening: Opening) {
        super::opaque::tunnel(&self, head, opening).await;
    }
}
