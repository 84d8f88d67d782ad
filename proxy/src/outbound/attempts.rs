//! A request on its way to a service: to which endpoint, how often, and for how long.
//!
//! Two kinds of repetition are kept apart. A try goes on to another endpoint by itself when it is certain that no
//! application has seen the request, or when seeing it twice does no harm; that is always so, and no policy limits it.
//! A new try after an answer, a reset or a time-out is made only as the service's policy says, and within its budget.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::header::SET_COOKIE;
use ::http::request::Parts;
use ::http::{Request, Response};
use fsm_proxy_config::Backend;
use fsm_proxy_config::traffic::retry::{grpc_status, grpc_timeout};
use fsm_proxy_config::traffic::{Feedback, NewSession, Outcome, Retry};
use smallvec::SmallVec;

use super::http::{Leaving, Outbound, Route};
use crate::account::Account;
use crate::context::Place;
use crate::headers;
use crate::metrics::{Failure, RequestTimer};
use crate::reply::Reply;
use crate::stream::{Body, Kept, with_head};
use crate::upstream::{Counted, Entered, Peer, Picked, Pool, Trial, UpstreamError};

/// How often a request is sent in one try that no application has seen.
const UNSEEN: usize = 4;

/// A request to a service, until its response begins.
pub struct Attempts<'s> {
    outbound: &'s Outbound,
    pool: &'s Pool,
    backend: Backend<'s>,
    /// For consistent hashing.
    key: Option<u64>,
    session: Option<NewSession<'s>>,
    timer: RequestTimer,
    account: &'s mut Account,
    /// Endpoints that could not be reached.
    unreachable: SmallVec<[SocketAddr; UNSEEN]>,
    /// Those at which earlier tries failed: others are preferred.
    failed: SmallVec<[SocketAddr; 2]>,
    /// The endpoint that is asked.
    asked: Option<Picked<'s>>,
}

impl<'s> Attempts<'s> {
    pub fn new(outbound: &'s Outbound, route: Route<'s>, timer: RequestTimer, account: &'s mut Account) -> Self {
        Self {
            outbound,
            pool: outbound.context.balancer.pool(&route.backend),
            backend: route.backend,
            key: route.key,
            session: route.session,
            timer,
            account,
            unreachable: SmallVec::new(),
            failed: SmallVec::new(),
            asked: None,
        }
    }

    /// Sends the request until there is an answer, or it is given up. `place` is held until the response has ended.
    pub async fn run(mut self, leaving: Leaving<'s>, place: Place) -> Result<Response<Body>, Reply> {
        let policy = self.backend.policy;
        let most = policy.limits.requests.unwrap_or(u32::MAX);
        let counted = policy.retry.is_some() || policy.limits.requests.is_some();
        let active = counted.then(|| self.pool.enter(Counted::Requests, most));
        if let Some(None) = active {
            self.pool.stats().request_overflow.add(1);
            return Err(Reply::overflow(most));
        }
        let trial = self.pool.try_circuit(leaving.start).map_err(|open| Reply::degraded(open.breaker, open.left))?;
        let answered = if !self.is_bounded(&leaving) {
            self.once(leaving).await.map(|response| (response, None)).map_err(|error| failed(error.as_ref()))
        } else {
            // Has more to remember, and a place of its own for it.
            Box::pin(self.by_policy(leaving)).await
        };
        if let Some(trial) = trial {
            judge(trial, &answered);
        }
        let (mut response, retry) = answered?;
        self.timer.answered(response.status());
        if let Some(cookie) = self.session.and_then(|session| session.set_cookie()) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        let account = std::mem::take(self.account).answers(self.timer.stats(), &mut response);
        let in_flight = self.asked.map(|picked| picked.in_flight);
        // Boxed together; where no policy is, the last two are none.
        response.body_mut().attach((account, self.timer, in_flight, place, (active, retry)));
        Ok(response)
    }

    /// Whether the policy, or the caller's own deadline where there is a policy, says more of it than where it goes.
    fn is_bounded(&self, leaving: &Leaving<'_>) -> bool {
        let policy = self.backend.policy;
        let deadline = || !policy.name.is_empty() && headers::is_grpc(leaving.request.headers());
        leaving.upgrade.is_none() && (policy.retry.is_some() || policy.request_timeout.is_some() || deadline())
    }

    /// One try, at several endpoints if the first ones do not take it. None: there is nobody left to ask.
    async fn once(&mut self, mut leaving: Leaving<'s>) -> Result<Response<Body>, Option<UpstreamError>> {
        let mut last = None;
        for _ in 0..UNSEEN {
            let Some(picked) = self.pick() else { break };
            let begun = self.pool.measures().then(Instant::now);
            let endpoint = picked.endpoint;
            self.account.sent_to(endpoint);
            self.asked = Some(picked);
            let peer = Peer { queue: self.pool.queue(), ..Peer::of(endpoint) };
            match self.outbound.send(peer, leaving).await {
                Ok(response) => {
                    if let Some(picked) = self.asked.as_ref().filter(|_| self.pool.listens()) {
                        let feedback = Feedback::of(response.status(), grpc_status(response.headers()));
                        self.pool.went(picked, begun.map(|begun| begun.elapsed()), feedback);
                    }
                    return Ok(response);
                }
                Err((error, again)) => {
                    tracing::debug!(address = %endpoint.address, %error, "a request was not answered");
                    self.timer.failed(error.failure());
                    if error.is_overflow() {
                        self.pool.stats().request_overflow.add(1);
                        return Err(Some(error));
                    }
                    if let Some(picked) = self.asked.as_ref().filter(|_| !error.is_of_client()) {
                        // It is gone or going: others are preferred for a moment.
                        self.pool.unreachable(picked);
                        let dialled = !matches!(error, UpstreamError::Dial(_));
                        let feedback = if dialled { Feedback::Gateway } else { Feedback::Unreachable };
                        self.pool.went(picked, None, feedback);
                    }
                    if matches!(error, UpstreamError::Dial(_)) {
                        self.unreachable.push(endpoint.address);
                    }
                    last = Some(error);
                    let Some(again) = again else { break };
                    leaving = again;
                    self.outbound.context.metrics.retries.add(1);
                    self.timer.retried();
                    self.account.retried();
                }
            }
        }
        Err(last)
    }

    fn pick(&self) -> Option<Picked<'s>> {
        let pick = |tried: &[SocketAddr]| self.pool.pick(&self.backend, self.key, tried);
        if self.failed.is_empty() {
            return pick(&self.unreachable);
        }
        let tried: SmallVec<[SocketAddr; 8]> = self.unreachable.iter().chain(&self.failed).copied().collect();
        pick(&tried).or_else(|| pick(&self.unreachable))
    }

    /// Tries as often and as long as the policy says.
    async fn by_policy(&mut self, mut leaving: Leaving<'s>) -> Result<(Response<Body>, Option<Entered>), Reply> {
        let (policy, stats) = (self.backend.policy, self.pool.stats());
        let method = leaving.request.method().clone();
        let grpc = headers::is_grpc(leaving.request.headers());
        let asked_for = grpc.then(|| grpc_timeout(leaving.request.headers())).flatten();
        let time = [policy.request_timeout, asked_for].into_iter().flatten().min();
        let deadline = time.map(|time| tokio::time::Instant::from_std(leaving.start) + time);
        let retry = policy.retry.as_ref().filter(|retry| retry.concerns(&method, grpc));
        let per_try = policy.retry.as_ref().and_then(|retry| retry.per_try_timeout);
        let (snapshot, start) = (leaving.snapshot, leaving.start);
        let (mut retries, mut permit) = (0, None);
        loop {
            let again = retry.filter(|retry| retries < retry.attempts).map(|_| Again::of(&mut leaving.request));
            let begun = tokio::time::Instant::now();
            let until = [deadline, per_try.map(|time| begun + time)].into_iter().flatten().min();
            let tried = match until {
                None => Tried::of(self.once(leaving).await),
                Some(until) => match tokio::time::timeout_at(until, self.once(leaving)).await {
                    Ok(tried) => Tried::of(tried),
                    Err(_elapsed) => Tried::TooLong,
                },
            };
            if let (Tried::TooLong, Some(picked)) = (&tried, &self.asked) {
                self.pool.went(picked, Some(begun.elapsed()), Feedback::Gateway);
            }
            if let (Tried::TooLong, Some(time)) = (&tried, time.filter(|_| until == deadline)) {
                stats.timeouts.add(1);
                self.timer.failed(Failure::Elsewhere);
                return Err(Reply::timed_out(time, false));
            }
            let outcome = tried.outcome(grpc);
            if outcome == Some(Outcome::TimedOut) {
                stats.per_try_timeouts.add(1);
                self.timer.failed(Failure::Elsewhere);
            }
            let next = match outcome.filter(|outcome| retry.is_some_and(|retry| retry.wants(*outcome, &method))) {
                Some(_) => self.next(retry, retries, again, &mut permit, deadline),
                None => {
                    stats.retry_success.add(u64::from(retries > 0 && matches!(tried, Tried::Answered(_))));
                    None
                }
            };
            let Some((request, wait)) = next else {
                let response = tried.finish(per_try)?;
                return Ok((
                    match deadline {
                        Some(deadline) => response.map(|body| body.until(deadline)),
                        None => response,
                    },
                    permit,
                ));
            };
            // Ends the answer that is not wanted.
            drop(tried);
            self.failed.extend(self.asked.take().map(|picked| picked.endpoint.address));
            if !wait.is_zero() {
                stats.retry_backoff.add(1);
                tokio::time::sleep(wait).await;
            }
            retries += 1;
            self.outbound.context.metrics.retries.add(1);
            self.timer.retried();
            self.account.retried();
            leaving = Leaving { snapshot, request, upgrade: None, passed: None, start };
        }
    }

    /// The request for the next try, and how long to wait before; none if there is to be none.
    fn next(
        &self,
        retry: Option<&Retry>,
        retries: u32,
        again: Option<Again>,
        permit: &mut Option<Entered>,
        deadline: Option<tokio::time::Instant>,
    ) -> Option<(Box<Request<Body>>, Duration)> {
        let (retry, stats) = (retry?, self.pool.stats());
        let Some(again) = again else {
            stats.retry_limit_exceeded.add(1);
            return None;
        };
        let request = again.request()?;
        let wait = retry.backoff(retries, fastrand::u32(..));
        if deadline.is_some_and(|deadline| tokio::time::Instant::now() + wait >= deadline) {
            return None;
        }
        let budget = retry.budget.most(self.pool.open(Counted::Requests));
        let most = self.backend.policy.limits.retries.unwrap_or(u32::MAX).min(budget);
        *permit = None;
        *permit = self.pool.enter(Counted::Retries, most);
        if permit.is_none() {
            stats.retry_overflow.add(1);
            return None;
        }
        Some((request, wait))
    }
}

/// What a try came to.
enum Tried {
    Answered(Box<Response<Body>>),
    Failed(Option<UpstreamError>),
    TooLong,
}

impl Tried {
    fn of(tried: Result<Response<Body>, Option<UpstreamError>>) -> Self {
        tried.map_or_else(Self::Failed, |response| Self::Answered(Box::new(response)))
    }

    /// In the words of policies; none for what no policy is about.
    fn outcome(&self, grpc: bool) -> Option<Outcome> {
        match self {
            Self::Answered(response) => {
                let status = grpc.then(|| grpc_status(response.headers())).flatten();
                Some(Outcome::Answered(response.status(), status))
            }
            Self::Failed(Some(error)) if error.is_of_client() => None,
            // Every endpoint that is left was asked.
            Self::Failed(None | Some(UpstreamError::Dial(_))) => None,
            Self::Failed(Some(_)) => Some(Outcome::Reset),
            Self::TooLong => Some(Outcome::TimedOut),
        }
    }

    fn finish(self, per_try: Option<Duration>) -> Result<Response<Body>, Reply> {
        match self {
            Self::Answered(response) => Ok(*response),
            Self::Failed(error) => Err(failed(error.as_ref())),
            Self::TooLong => Err(Reply::timed_out(per_try.unwrap_or_default(), true)),
        }
    }
}

/// What came of a request says something of the service, unless the service was not asked or the client broke off.
fn judge<T>(trial: Trial<'_>, answered: &Result<(Response<Body>, T), Reply>) {
    match answered {
        Ok((response, _)) => {
            trial.ended(Feedback::of(response.status(), grpc_status(response.headers())) != Feedback::Well);
        }
        Err(reply) if reply.is_of_service() => trial.ended(true),
        Err(_) => trial.forget(),
    }
}

fn failed(error: Option<&UpstreamError>) -> Reply {
    error.map_or_else(Reply::nobody_left, Reply::failed)
}

/// A request that may have to be sent again.
struct Again {
    head: Parts,
    kept: Arc<Kept>,
}

impl Again {
    /// From now on `request` notes what is read of its body.
    fn of(request: &mut Request<Body>) -> Self {
        let head = with_head(request, |head| head.clone());
        let kept = Arc::new(Kept::default());
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = body.noted(Arc::clone(&kept));
        Self { head, kept }
    }

    /// The same request; none if its body was not kept, or is still being sent.
    fn request(self) -> Option<Box<Request<Body>>> {
        let body = Body::again(self.kept.whole()?, Body::empty());
        Some(Box::new(Request::from_parts(self.head, body)))
    }
}
