//! The endpoints of a service port in one configuration, and the choice between them.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fsm_proxy_config::model::Endpoint;
use fsm_proxy_config::traffic::{Algorithm, Candidates, Feedback, Outliers, Ring, candidates};
use fsm_proxy_config::{Backend, TrafficPolicy};
use smallvec::SmallVec;

use super::breaker::{Open, Trial};
use super::circuit::{Counted, Entered, Queue};
use super::load::{InFlight, Load};
use super::member::{Member, Watched};
use super::port::Port;
use crate::metrics::TrafficStats;

/// What is known about the endpoints of one configuration.
pub struct Pool {
    port: Arc<Port>,
    policy: Arc<TrafficPolicy>,
    /// In the order of the endpoints.
    members: Box<[Arc<Member>]>,
    shares: Shares,
    ring: Option<Arc<Ring>>,
}

/// Who may be taken, and how often.
enum Shares {
    /// As long as the configuration.
    Fixed(Candidates),
    Changing(ArcSwap<Current>),
}

struct Current {
    candidates: Candidates,
    /// Milliseconds of the balancer's clock.
    until: u64,
    /// Of the port, when this was made.
    version: u64,
}

/// An endpoint that was chosen, and its place in the count.
#[derive(Debug)]
pub struct Picked<'e> {
    pub endpoint: &'e Endpoint,
    pub in_flight: InFlight,
    index: usize,
}

impl Pool {
    /// For the endpoints of `backend`; `load` gives the load of an address.
    pub(super) fn new(port: &Arc<Port>, backend: &Backend<'_>, load: impl FnMut(SocketAddr) -> Arc<Load>) -> Self {
        let members = port.join(backend.siblings, load);
        let policy = Arc::clone(backend.policy);
        let current = Current::new(port, &policy, backend.siblings, &members);
        let shares = match policy.shares_change() {
            true => Shares::Changing(ArcSwap::from_pointee(current)),
            false => Shares::Fixed(current.candidates),
        };
        let hashes = matches!(policy.balancing.algorithm, Algorithm::ConsistentHash { .. });
        let ring = hashes.then(|| port.ring(backend.siblings));
        Self { port: Arc::clone(port), policy, members, shares, ring }
    }

    /// The endpoint for the next request or connection. `key` is what consistent hashing goes by, if the request has one.
    /// `tried` are left out; none is left: none.
    pub fn pick<'e>(&self, backend: &Backend<'e>, key: Option<u64>, tried: &[SocketAddr]) -> Option<Picked<'e>> {
        let index = match backend.pinned {
            Some(index) => Some(index).filter(|_| tried.is_empty()),
            None => match &self.shares {
                Shares::Fixed(candidates) => self.choose(candidates, backend.siblings, key, tried),
                Shares::Changing(current) => {
                    if current.load().is_over(&self.port) {
                        current.store(Arc::new(Current::new(
                            &self.port,
                            &self.policy,
                            backend.siblings,
                            &self.members,
                        )));
                    }
                    self.choose(&current.load().candidates, backend.siblings, key, tried)
                }
            },
        }?;
        let in_flight = self.members[index].load.enter();
        Some(Picked { endpoint: &backend.siblings[index], in_flight, index })
    }

    /// What is counted for the service port.
    pub fn stats(&self) -> &TrafficStats {
        &self.port.stats
    }

    /// A place among at most `most`; none is left: none.
    pub fn enter(&self, counted: Counted, most: u32) -> Option<Entered> {
        self.port.enter(counted, most)
    }

    /// How many of these there are now, all endpoints together.
    pub fn open(&self, counted: Counted) -> u32 {
        self.port.circuit.open(counted)
    }

    /// For a request that came when it had `begun`; none if no circuit breaker looks at it.
    ///
    /// # Errors
    ///
    /// The service is left alone: the request is not sent.
    pub fn try_circuit(&self, begun: Instant) -> Result<Option<Trial<'_>>, Open<'_>> {
        self.policy.circuit_breaker.as_ref().map(|breaker| Trial::begin(&self.port, breaker, begun)).transpose()
    }

    /// Where requests wait for a connection, if that is bounded.
    pub fn queue(&self) -> Option<Queue<'_>> {
        Queue::of(&self.port, &self.policy.limits)
    }

    /// Remembers that an endpoint could not be reached.
    pub fn unreachable(&self, picked: &Picked<'_>) {
        self.members[picked.index].load.avoid(self.port.clock);
    }

    /// Whether the algorithm wants to know how long endpoints take.
    pub fn measures(&self) -> bool {
        matches!(self.policy.balancing.algorithm, Algorithm::PeakEwma { .. })
    }

    /// Whether somebody wants to know how requests go.
    pub fn listens(&self) -> bool {
        self.measures() || self.policy.outliers.is_some()
    }

    /// Takes in how a request or connection went, and how long it took to begin. What failed is not fast: it may have
    /// taken long, but never makes an endpoint look better than before.
    pub fn went(&self, picked: &Picked<'_>, latency: Option<Duration>, feedback: Feedback) {
        let member = &self.members[picked.index];
        if let (Algorithm::PeakEwma { decay }, Some(latency)) = (&self.policy.balancing.algorithm, latency) {
            let known = &member.load.latency;
            let before = Duration::from_secs_f32(known.last().unwrap_or_default() / 1000.0);
            let counts = if feedback == Feedback::Well { latency } else { latency.max(before) };
            known.observe(counts, self.port.clock.now(), *decay);
        }
        if let Some(outliers) = &self.policy.outliers
            && member.is_to_be_ejected(outliers, feedback, self.port.clock)
        {
            self.eject(picked, member, outliers);
        }
    }

    fn eject(&self, picked: &Picked<'_>, member: &Member, outliers: &Outliers) {
        let _alone = self.port.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.port.clock.now();
        let ejected = self.members.iter().filter(|member| member.is_ejected(now)).count();
        if !outliers.has_room(ejected, self.members.len()) {
            return self.port.stats.ejections_overflow.add(1);
        }
        if member.eject(outliers, now) {
            self.port.stats.ejections.add(1);
            self.port.version.fetch_add(1, Ordering::Release);
            tracing::info!(address = %picked.endpoint.address, "an endpoint failed too often in a row, and is left out for a while");
        }
    }

    /// An endpoint, for who checks its health.
    pub fn watch(&self, index: usize) -> Watched {
        Watched { port: Arc::clone(&self.port), member: Arc::clone(&self.members[index]) }
    }

    fn choose(
        &self,
        candidates: &Candidates,
        endpoints: &[Endpoint],
        key: Option<u64>,
        tried: &[SocketAddr],
    ) -> Option<usize> {
        let draw = || fastrand::u32(..);
        let is_left = |index: usize| !tried.contains(&endpoints[index].address);
        let is_well = |index: usize| is_left(index) && !self.members[index].load.is_avoided(self.port.clock);
        let chosen = match (&self.policy.balancing.algorithm, self.ring.as_ref().zip(key)) {
            (_, Some((ring, key))) => ring.owner(key, |index| candidates.is_usable(index) && is_well(index)),
            (Algorithm::RoundRobin, _) => {
                let turn = self.port.turn.fetch_add(1, Ordering::Relaxed);
                candidates.in_turn(if candidates.has_zones() { draw() } else { 0 }, turn)
            }
            (Algorithm::PeakEwma { decay }, _) => {
                let now = self.port.clock.now();
                candidates.less_loaded([draw(), draw(), draw()], |index, other| {
                    let (load, other) = (&self.members[index].load, &self.members[other].load);
                    let under_way = f64::from(load.in_flight()) + 1.0;
                    // One that was never measured is as fast as the other one.
                    match (load.latency.get(now, *decay), other.latency.get(now, *decay)) {
                        (Some(latency), Some(_)) => f64::from(latency) * under_way,
                        _ => under_way,
                    }
                })
            }
            _ => candidates.less_loaded([draw(), draw(), draw()], |index, _| self.under_way(index)),
        };
        match chosen {
            Some(index) if is_well(index) => Some(index),
            _ => {
                let among = |good: &dyn Fn(usize) -> bool| {
                    let usable = (0..endpoints.len()).filter(|index| candidates.is_usable(*index) && good(*index));
                    self.less_loaded(&usable.collect::<SmallVec<[usize; 16]>>())
                };
                among(&is_well).or_else(|| among(&is_left))
            }
        }
    }

    fn under_way(&self, index: usize) -> f64 {
        f64::from(self.members[index].load.in_flight())
    }

    /// Of two of these, the less loaded: what is left when the first choice cannot be taken.
    fn less_loaded(&self, left: &[usize]) -> Option<usize> {
        let [first, second] =
            candidates::two_of(left.len(), [fastrand::u32(..), fastrand::u32(..)])?.map(|at| left[at]);
        Some(if self.under_way(second) < self.under_way(first) { second } else { first })
    }
}

impl Current {
    fn new(port: &Port, policy: &TrafficPolicy, endpoints: &[Endpoint], members: &[Arc<Member>]) -> Self {
        // Before anything is looked at: what changes meanwhile makes this over at once.
        let version = port.version.load(Ordering::Acquire);
        let now = port.clock.now();
        let mut until = u64::MAX;
        let known = endpoints.iter().zip(members).map(|(endpoint, member)| {
            let back = policy.outliers.as_ref().and_then(|_| member.ejected_until(now));
            until = until.min(back.unwrap_or(u64::MAX));
            let age = match &policy.balancing.slow_start {
                Some(slow_start) => member.age(now).filter(|age| *age < slow_start.window).inspect(|_| {
                    until = until.min(now + slow_start.step().as_millis() as u64);
                }),
                None => None,
            };
            let healthy = back.is_none() && (policy.health_check.is_none() || member.is_healthy());
            candidates::Member { weight: endpoint.weight, zone: &endpoint.zone, healthy, age }
        });
        let known: Vec<_> = known.collect();
        Self { candidates: Candidates::new(&policy.balancing, &known), until, version }
    }

    fn is_over(&self, port: &Port) -> bool {
        self.version != port.version.load(Ordering::Acquire)
            || (self.until < u64::MAX && self.until <= port.clock.now())
    }
}
