//! Which endpoint, from what is under way at each and how it went so far.
//!
//! How the choice is made is said by the service's policy, and worked out in `fsm_proxy_config::traffic`; here is what
//! it is made from. A request finds it in its configuration, without a look-up: every snapshot has, for each service
//! port, a [`Pool`], made when it is first used. What must outlast a configuration is shared by the pools of
//! successive ones.

mod breaker;
mod circuit;
mod latency;
mod load;
mod member;
mod pool;
mod port;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fsm_proxy_config::{Backend, Snapshot};

use load::Load;
use port::Port;

use crate::metrics::TrafficTable;

pub use breaker::Trial;
pub use circuit::{CircuitState, Counted, Entered, Queue};
pub use load::InFlight;
pub use member::{MemberState, Watched};
pub use pool::{Picked, Pool};

/// All that this proxy knows about endpoints.
pub struct Balancer {
    known: Mutex<Known>,
    traffic: Arc<TrafficTable>,
    clock: Clock,
}

#[derive(Default)]
struct Known {
    /// By service (`ns/name`) and port.
    ports: HashMap<(Arc<str>, u16), Arc<Port>>,
    /// By address: a pod may be an endpoint of several services, and is as loaded for each.
    loads: HashMap<SocketAddr, Arc<Load>>,
}

/// Time, in milliseconds since the balancer's start, at least 1.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> u64 {
        self.0.elapsed().as_millis() as u64 + 1
    }
}

impl Balancer {
    /// Counts what it does in `traffic`.
    pub fn new(traffic: &Arc<TrafficTable>) -> Self {
        Self { known: Mutex::default(), traffic: Arc::clone(traffic), clock: Clock(Instant::now()) }
    }

    /// What is known about the endpoints of a backend.
    pub fn pool<'s>(&self, backend: &Backend<'s>) -> &'s Pool {
        backend.attachment.get_or_init(|| self.join(backend))
    }

    /// The pool of a new configuration. New endpoints are added; those that are gone stay until [`Balancer::tidy`], as
    /// requests of the configuration before may still be under way.
    fn join(&self, backend: &Backend<'_>) -> Pool {
        let mut known = self.known();
        let Known { ports, loads } = &mut *known;
        let service: Arc<str> = backend.service.into();
        let port = ports.entry((Arc::clone(&service), backend.port)).or_insert_with(|| {
            let name = format!("{service}:{}", backend.port);
            Port::new(name, self.clock, self.traffic.of(&service, backend.port))
        });
        Pool::new(port, backend, |address| Arc::clone(loads.entry(address).or_default()))
    }

    /// Forgets the endpoints that are not in `snapshot` and have nothing under way.
    pub fn tidy(&self, snapshot: &Snapshot) {
        let mut known = self.known();
        let Known { ports, loads } = &mut *known;
        let mut told = HashMap::new();
        for (service, port, endpoints) in snapshot.pools() {
            told.insert((service.name.as_str(), port.number), endpoints);
        }
        ports.retain(|(service, number), port| {
            let endpoints = told.get(&(&**service, *number)).copied().unwrap_or_default();
            port.forget_all_but(endpoints);
            !endpoints.is_empty()
        });
        loads.retain(|_, load| Arc::strong_count(load) > 1);
    }

    /// What is known about one endpoint of a service port, for people; none if nothing went there yet.
    pub fn state(&self, service: &str, port: u16, address: SocketAddr) -> Option<MemberState> {
        let known = self.known();
        let port = known.ports.get(&(Arc::from(service), port))?;
        port.member(address).map(|member| member.state(self.clock))
    }

    /// What is under way to a service port, as far as it is bounded; none if nothing went there yet.
    pub fn circuit(&self, service: &str, port: u16) -> Option<CircuitState> {
        let known = self.known();
        let port = known.ports.get(&(Arc::from(service), port))?;
        Some(port.circuit.state(port.breaker.open_for(self.clock)))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
