//! What is kept about a service port from one configuration to the next.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use fsm_proxy_config::model::Endpoint;
use fsm_proxy_config::traffic::Ring;

use super::Clock;
use super::breaker::Breaker;
use super::circuit::Circuit;
use super::load::Load;
use super::member::Member;
use crate::metrics::TrafficStats;

/// A ring, and the endpoints with their weights that it was made of.
type Known = (Vec<(SocketAddr, u32)>, Arc<Ring>);

/// A port of a service.
pub struct Port {
    /// `ns/name:port`, for people.
    pub name: String,
    pub(super) clock: Clock,
    members: Mutex<HashMap<SocketAddr, Arc<Member>>>,
    /// The next turn of round robin. Begins anywhere, so that proxies that start together do not go the same round.
    pub turn: AtomicU32,
    /// Goes up when it changes who is healthy.
    pub version: AtomicU64,
    /// Held by who ejects an endpoint, so that two together do not eject more than may be.
    pub ejecting: Mutex<()>,
    pub stats: Arc<TrafficStats>,
    pub circuit: Circuit,
    pub breaker: Breaker,
    /// The last ring, as most configurations leave it as it is.
    ring: Mutex<Option<Known>>,
}

impl Port {
    pub(super) fn new(name: String, clock: Clock, stats: Arc<TrafficStats>) -> Arc<Self> {
        Arc::new(Self {
            name,
            clock,
            members: Mutex::default(),
            turn: AtomicU32::new(fastrand::u32(..)),
            version: AtomicU64::new(0),
            ejecting: Mutex::default(),
            stats,
            circuit: Circuit::default(),
            breaker: Breaker::default(),
            ring: Mutex::default(),
        })
    }

    /// The members for these endpoints, in their order. Those of the first configuration are not new: the proxy is.
    pub fn join(&self, endpoints: &[Endpoint], mut load: impl FnMut(SocketAddr) -> Arc<Load>) -> Box<[Arc<Member>]> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let since = if members.is_empty() { 0 } else { self.clock.now() };
        let member = |endpoint: &Endpoint| {
            let known = members.entry(endpoint.address);
            let member = known.or_insert_with(|| Arc::new(Member::new(load(endpoint.address), since)));
            member.set_weight(endpoint.weight);
            Arc::clone(member)
        };
        endpoints.iter().map(member).collect()
    }

    /// Forgets all endpoints but these, which are in order of their addresses.
    pub fn forget_all_but(&self, endpoints: &[Endpoint]) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|address, _| endpoints.binary_search_by_key(address, |endpoint| endpoint.address).is_ok());
    }

    pub fn member(&self, address: SocketAddr) -> Option<Arc<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    /// The ring of these endpoints.
    pub fn ring(&self, endpoints: &[Endpoint]) -> Arc<Ring> {
        let weighted: Vec<_> = endpoints.iter().map(|endpoint| (endpoint.address, endpoint.weight)).collect();
        let mut last = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((same, ring)) if *same == weighted => Arc::clone(ring),
            _ => {
                let ring = Arc::new(Ring::new(&weighted));
                *last = Some((weighted, Arc::clone(&ring)));
                ring
            }
        }
    }
}
