//! Requests of the application. Each is decided for itself, so a new configuration holds on open connections too.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ::http::header::{CONNECTION, HeaderValue};
use ::http::request::Parts;
use ::http::{Method, Request, Response, StatusCode, Version};
use fsm_proxy_config::traffic::{Algorithm, hash::key_of};
use fsm_proxy_config::{Backend, Connection, Decision, RequestHead, Snapshot, decide};
use smallvec::SmallVec;

use crate::account::Account;
use crate::context::{Context, Place};
use crate::field_names::FieldNames;
use crate::headers;
use crate::metrics::{Direction, RequestTimer};
use crate::reply::Reply;
use crate::serve::{Answer, Downstream, Opening};
use crate::stream::{Body, Until, with_head};
use crate::upstream::{Asking, Failed, InFlight, Peer, UpstreamError};

/// How often a request is sent at most.
const ATTEMPTS: usize = 4;

/// Answers the requests of one connection.
#[derive(Clone)]
pub struct Outbound {
    context: Arc<Context>,
    destination: SocketAddr,
    /// Where the connection came from.
    source: IpAddr,
}

/// Where a request goes.
struct Route<'s> {
    /// The TrafficSplit that applies.
    split: Option<&'s str>,
    backend: Backend<'s>,
    /// For consistent hashing.
    key: Option<u64>,
}

/// A request that is ready to leave.
struct Leaving<'s> {
    snapshot: &'s Snapshot,
    request: Box<Request<Body>>,
    /// The client's side of an upgrade, if the request asks for one.
    upgrade: Option<Downstream>,
    start: Instant,
}

impl Outbound {
    /// For requests from `source` to `destination`.
    pub fn new(context: Arc<Context>, source: IpAddr, destination: SocketAddr) -> Self {
        Self { context, destination, source }
    }

    async fn answer(&self, mut request: Box<Request<Body>>, account: &mut Account) -> Result<Response<Body>, Reply> {
        let start = Instant::now();
        let snapshot = self.context.snapshots.load_full().ok_or_else(Reply::not_ready)?;
        let (decision, upgrade) = with_head(&mut request, |parts| {
            let decision = self.decide(&snapshot, parts);
            *account = Account::of_request(&self.context.observers, &snapshot, Direction::Outbound, start, parts);
            (decision, headers::hand_on(parts))
        });
        if request.method() == Method::CONNECT {
            return Err(Reply::no_tunnels());
        }
        let place = self.context.place(Direction::Outbound)?;
        let upgrade = upgrade.then(|| Downstream::of(&mut request));
        let leaving = Leaving { snapshot: &snapshot, request, upgrade, start };
        match decision {
            Ok((service, route)) => self.to_service(leaving, service, route, place, account).await,
            Err(Decision::Passthrough(_)) => self.to_destination(leaving, place, account).await,
            Err(Decision::Refuse(refusal)) => Err(Reply::refused(&refusal)),
            Err(Decision::Forward(_) | Decision::Allow(_)) => Err(Reply::not_ready()),
        }
    }

    /// The service that is addressed and the way to it, or what else happens.
    fn decide<'s>(&self, snapshot: &'s Snapshot, parts: &Parts) -> Result<(&'s str, Route<'s>), Decision<'s>> {
        let head = RequestHead::of(parts);
        let forward = match decide(snapshot, &Connection::Outbound { destination: self.destination }, Some(&head)) {
            Decision::Forward(forward) => forward,
            other => return Err(other),
        };
        let backend = forward.pick_backend(fastrand::u32(..));
        let key = match &backend.policy.balancing.algorithm {
            Algorithm::ConsistentHash { keys } => key_of(keys, Some(&head), Some(self.source)),
            _ => None,
        };
        Ok((&forward.service.name, Route { split: forward.split, backend, key }))
    }

    async fn to_service(
        &self,
        mut leaving: Leaving<'_>,
        service: &str,
        route: Route<'_>,
        place: Place,
        account: &mut Account,
    ) -> Result<Response<Body>, Reply> {
        let Route { split, backend, key } = route;
        let pool = self.context.balancer.pool(&backend);
        let stats = self.context.metrics.requests(Direction::Outbound, service, backend.service);
        let timer = stats.begin(leaving.start);
        account.forwarded(service, split, &backend);
        account.receives(timer.stats(), leaving.request.body_mut());
        let mut unreachable: SmallVec<[SocketAddr; ATTEMPTS]> = SmallVec::new();
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let Some(picked) = pool.pick(&backend, key, &unreachable) else { break };
            let endpoint = picked.endpoint;
            let begun = pool.measures().then(Instant::now);
            let peer = Peer { application: endpoint.address, identity: endpoint.identity.as_ref() };
            account.sent_to(endpoint);
            match self.send(peer, leaving).await {
                Ok(response) => {
                    if let Some(begun) = begun {
                        pool.answered(&picked, begun.elapsed(), response.status().is_server_error());
                    }
                    return Ok(finish(response, timer, std::mem::take(account), (Some(picked.in_flight), place)));
                }
                Err((error, again)) => {
                    tracing::debug!(address = %endpoint.address, %error, "a request was not answered");
                    if !error.is_of_client() {
                        // It is gone or going: others are preferred for a moment.
                        pool.unreachable(&picked);
                    }
                    if matches!(error, UpstreamError::Dial(_)) {
                        unreachable.push(endpoint.address);
                    }
                    last = Some(Reply::failed(&error));
                    let Some(again) = again else { break };
                    leaving = again;
                    self.context.metrics.retries.add(1);
                    timer.retried();
                    account.retried();
                }
            }
        }
        // A forward has endpoints, so at least one was tried.
        Err(last.unwrap_or_else(Reply::not_ready))
    }

    async fn to_destination(
        &self,
        mut leaving: Leaving<'_>,
        place: Place,
        account: &mut Account,
    ) -> Result<Response<Body>, Reply> {
        let stats = self.context.metrics.requests(Direction::Outbound, "passthrough", "passthrough");
        let timer = stats.begin(leaving.start);
        account.passed_through(self.destination);
        account.receives(timer.stats(), leaving.request.body_mut());
        let _open = self.context.metrics.plain_outbound.open();
        let peer = Peer { application: self.destination, identity: None };
        match self.send(peer, leaving).await {
            Ok(response) => Ok(finish(response, timer, std::mem::take(account), (None, place))),
            Err((error, _)) => Err(Reply::failed(&error)),
        }
    }

    /// Sends the request once; gives it back if it may be sent again.
    async fn send<'s>(
        &self,
        peer: Peer<'_>,
        leaving: Leaving<'s>,
    ) -> Result<Response<Body>, (UpstreamError, Option<Leaving<'s>>)> {
        let Leaving { snapshot, request, upgrade, start } = leaving;
        let timeout = snapshot.settings().connect_timeout;
        let upstream = &self.context.upstream;
        let Some(downstream) = upgrade else {
            return upstream.request(peer, timeout, request).await.map_err(|Failed { error, request }| {
                let again = request.map(|request| Leaving { snapshot, request, upgrade: None, start });
                (error, again)
            });
        };
        let until = Until { idle: snapshot.settings().idle_timeout, ..Until::default() };
        let http2 = downstream.is_http2();
        // Rare, and large: it has a place of its own.
        let asked = Box::pin(upstream.switch(peer, timeout, Asking { request, downstream, until }, http2)).await;
        asked.map_err(|(error, again)| {
            let again = again.map(|Asking { request, downstream, .. }| Leaving {
                snapshot,
                request,
                upgrade: Some(downstream),
                start,
            });
            (error, again)
        })
    }
}

/// Counts the response until its body ends.
fn finish(
    mut response: Response<Body>,
    mut timer: RequestTimer,
    account: Account,
    held: (Option<InFlight>, Place),
) -> Response<Body> {
    timer.answered(response.status());
    let account = account.answers(timer.stats(), &mut response);
    response.body_mut().attach((account, timer, held));
    response
}

impl Answer for Outbound {
    const WEBSOCKETS: bool = true;

    fn field_names(&self) -> FieldNames {
        self.context.field_names
    }

    async fn request(self, request: Box<Request<Body>>) -> Response<Body> {
        let grpc = headers::is_grpc(request.headers());
        let http1 = request.version() != Version::HTTP_2;
        let mut account = Account::default();
        match self.answer(request, &mut account).await {
            Ok(mut response) => {
                if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    headers::strip_hop_by_hop(response.headers_mut());
                }
                if http1 {
                    *response.version_mut() = Version::HTTP_11;
                }
                response
            }
            Err(reply) => {
                self.context.metrics.refused(Direction::Outbound, reply.reason);
                account.refused(&reply);
                tracing::debug!(destination = %self.destination, reason = %reply.text, "an outbound request is refused");
                let unclear = matches!(reply.status, StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED);
                let mut response = reply.into_response(grpc);
                if http1 && unclear {
                    // What comes next on the connection may not be what it seems either.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        }
    }

    async fn connect(self, _head: Parts, opening: Opening) {
        opening.unsupported();
    }
}
