//! Requests of the application. Each is decided for itself, so a new configuration holds on open connections too.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ::http::header::{CONNECTION, HeaderValue};
use ::http::request::Parts;
use ::http::{Method, Request, Response, StatusCode, Version};
use fsm_proxy_config::traffic::{Algorithm, NewSession, hash::key_of};
use fsm_proxy_config::{Backend, Connection, Decision, RequestHead, Snapshot, decide};

use super::attempts::Attempts;
use crate::account::Account;
use crate::context::{Context, Place};
use crate::field_names::FieldNames;
use crate::headers;
use crate::metrics::{Direction, RequestStats, RequestTimer};
use crate::reply::Reply;
use crate::serve::{Answer, Downstream, Opening};
use crate::stream::{Body, Passed, Until, Way, with_head};
use crate::upstream::{Asking, Failed, Peer, UpstreamError};

/// Answers the requests of one connection.
#[derive(Clone)]
pub struct Outbound {
    pub context: Arc<Context>,
    destination: SocketAddr,
    /// Where the connection came from.
    source: IpAddr,
}

/// Where a request goes.
pub struct Route<'s> {
    /// The TrafficSplit that applies.
    pub split: Option<&'s str>,
    pub backend: Backend<'s>,
    /// For consistent hashing.
    pub key: Option<u64>,
    /// The session that begins with it.
    pub session: Option<NewSession<'s>>,
}

/// A request that is ready to leave.
pub struct Leaving<'s> {
    pub snapshot: &'s Snapshot,
    pub request: Box<Request<Body>>,
    /// The client's side of an upgrade, if the request asks for one.
    pub upgrade: Option<Downstream>,
    /// Counts what follows the upgrade.
    pub passed: Option<Arc<Passed>>,
    pub start: Instant,
}

impl Leaving<'_> {
    /// Has what it carries counted: its body, or what follows the upgrade.
    fn counted(&mut self, stats: &Arc<RequestStats>, account: &mut Account) {
        account.receives(stats, self.request.body_mut());
        if self.upgrade.is_some() {
            self.passed = Some(account.carries(stats, Way::Request));
        }
    }
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
        let leaving = Leaving { snapshot: &snapshot, request, upgrade, passed: None, start };
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
        let mut route = Route { split: forward.split, backend, key: None, session: None };
        if let Algorithm::ConsistentHash { keys, session } = &backend.policy.balancing.algorithm {
            route.key = key_of(keys, Some(&head), Some(self.source));
            if let (None, Some(cookie)) = (route.key, session) {
                let (key, begins) = cookie.key(&head, || fastrand::u64(..));
                (route.key, route.session) = (Some(key), begins);
            }
        }
        Ok((&forward.service.name, route))
    }

    async fn to_service<'s>(
        &'s self,
        mut leaving: Leaving<'s>,
        service: &str,
        route: Route<'s>,
        place: Place,
        account: &'s mut Account,
    ) -> Result<Response<Body>, Reply> {
        let stats = self.context.metrics.requests(Direction::Outbound, service, route.backend.service);
        let timer = stats.begin(leaving.start);
        account.forwarded(service, route.split, &route.backend);
        leaving.counted(timer.stats(), account);
        Attempts::new(self, route, timer, account).run(leaving, place).await
    }

    async fn to_destination(
        &self,
        mut leaving: Leaving<'_>,
        place: Place,
        account: &mut Account,
    ) -> Result<Response<Body>, Reply> {
        let stats = self.context.metrics.requests(Direction::Outbound, "passthrough", "passthrough");
        let mut timer = stats.begin(leaving.start);
        account.passed_through(self.destination);
        leaving.counted(timer.stats(), account);
        let _open = self.context.metrics.plain_outbound.open();
        let peer = Peer::plain(self.destination);
        match self.send(peer, leaving).await {
            Ok(response) => Ok(finish(response, timer, std::mem::take(account), place)),
            Err((error, _)) => {
                timer.failed(error.failure());
                Err(Reply::failed(&error))
            }
        }
    }

    /// Sends the request once; gives it back if it may be sent again.
    pub async fn send<'s>(
        &self,
        peer: Peer<'_>,
        leaving: Leaving<'s>,
    ) -> Result<Response<Body>, (UpstreamError, Option<Leaving<'s>>)> {
        let Leaving { snapshot, request, upgrade, passed, start } = leaving;
        let timeout = snapshot.settings().connect_timeout;
        let upstream = &self.context.upstream;
        let Some(downstream) = upgrade else {
            return upstream.request(peer, timeout, request).await.map_err(|Failed { error, request }| {
                let again = request.map(|request| Leaving { snapshot, request, upgrade: None, passed: None, start });
                (error, again)
            });
        };
        let until = Until { idle: snapshot.settings().idle_timeout, passed, ..Until::default() };
        let http2 = downstream.is_http2();
        // Rare, and large: it has a place of its own.
        let asked = Box::pin(upstream.switch(peer, timeout, Asking { request, downstream, until }, http2)).await;
        asked.map_err(|(error, again)| {
            let again = again.map(|Asking { request, downstream, until }| Leaving {
                snapshot,
                request,
                upgrade: Some(downstream),
                passed: until.passed,
                start,
            });
            (error, again)
        })
    }
}

/// Counts the response until its body ends.
fn finish(mut response: Response<Body>, mut timer: RequestTimer, account: Account, place: Place) -> Response<Body> {
    timer.answered(response.status());
    let account = account.answers(timer.stats(), &mut response);
    response.body_mut().attach((account, timer, place));
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
