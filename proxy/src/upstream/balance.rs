//! Which endpoint: the less loaded of two random ones.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use fsm_proxy_config::model::Endpoint;

/// How long an endpoint that could not be reached is taken only if nothing else is there.
const PENALTY: Duration = Duration::from_secs(2);
/// Addresses that are remembered before unused ones are forgotten.
const FIRST_PRUNING: usize = 256;

/// What this proxy has under way at each endpoint, and which could not be reached lately.
pub struct Balancer {
    loads: RwLock<Loads>,
    start: Instant,
}

struct Loads {
    by_address: HashMap<SocketAddr, Arc<Load>>,
    prune_at: usize,
}

#[derive(Default)]
struct Load {
    in_flight: AtomicU32,
    /// Milliseconds since the balancer's start.
    penalised_until: AtomicU64,
}

/// One request or connection under way at an endpoint, until dropped.
#[must_use = "the endpoint counts as loaded only as long as this is held"]
pub struct InFlight(Arc<Load>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Balancer {
    fn default() -> Self {
        let loads = Loads { by_address: HashMap::new(), prune_at: FIRST_PRUNING };
        Self { loads: RwLock::new(loads), start: Instant::now() }
    }
}

impl Balancer {
    /// The endpoint for the next request, and its place in the count. `tried` are left out; none is left: none.
    pub fn pick<'e>(&self, endpoints: &'e [Endpoint], tried: &[SocketAddr]) -> Option<(&'e Endpoint, InFlight)> {
        let endpoint = match endpoints {
            [only] if tried.is_empty() => only,
            _ if tried.is_empty() => self.choose(endpoints.len(), |index| &endpoints[index])?,
            _ => {
                let left: Vec<&Endpoint> = endpoints.iter().filter(|one| !tried.contains(&one.address)).collect();
                self.choose(left.len(), |index| left[index])?
            }
        };
        Some((endpoint, self.enter(endpoint.address)))
    }

    /// Counts a request or connection at `address`.
    pub fn enter(&self, address: SocketAddr) -> InFlight {
        let load = self.load(address);
        load.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(load)
    }

    /// Remembers that `address` could not be reached.
    pub fn failed(&self, address: SocketAddr) {
        let until = (self.start.elapsed() + PENALTY).as_millis() as u64;
        self.load(address).penalised_until.store(until, Ordering::Relaxed);
    }

    /// Requests and connections under way at `address`.
    pub fn in_flight(&self, address: SocketAddr) -> u32 {
        self.cost(address).1
    }

    fn choose<'e>(&self, len: usize, at: impl Fn(usize) -> &'e Endpoint) -> Option<&'e Endpoint> {
        match len {
            0 => return None,
            1 => return Some(at(0)),
            _ => {}
        }
        let first = fastrand::usize(..len);
        let second = (first + 1 + fastrand::usize(..len - 1)) % len;
        let (first, second) = (at(first), at(second));
        let (first_cost, second_cost) = (self.cost(first.address), self.cost(second.address));
        let less = if second_cost < first_cost { second } else { first };
        if first_cost.0 && second_cost.0 {
            // Both could not be reached lately: look at all before taking one of them.
            return (0..len).map(&at).find(|one| !self.cost(one.address).0).or(Some(less));
        }
        Some(less)
    }

    /// Whether the address is to be avoided, and its load.
    fn cost(&self, address: SocketAddr) -> (bool, u32) {
        let loads = self.loads.read().unwrap_or_else(PoisonError::into_inner);
        let Some(load) = loads.by_address.get(&address) else { return (false, 0) };
        let penalised_until = load.penalised_until.load(Ordering::Relaxed);
        let penalised = penalised_until > 0 && penalised_until > self.start.elapsed().as_millis() as u64;
        (penalised, load.in_flight.load(Ordering::Relaxed))
    }

    fn load(&self, address: SocketAddr) -> Arc<Load> {
        if let Some(load) = self.loads.read().unwrap_or_else(PoisonError::into_inner).by_address.get(&address) {
            return Arc::clone(load);
        }
        let mut loads = self.loads.write().unwrap_or_else(PoisonError::into_inner);
        if loads.by_address.len() >= loads.prune_at {
            loads.by_address.retain(|_, load| Arc::strong_count(load) > 1);
            loads.prune_at = FIRST_PRUNING.max(loads.by_address.len() * 2);
        }
        Arc::clone(loads.by_address.entry(address).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: u16) -> Vec<Endpoint> {
        (0..count)
            .map(|port| Endpoint {
                address: SocketAddr::from(([10, 0, 0, 1], 1000 + port)),
                identity: None,
                pod: String::new(),
                zone: String::new(),
            })
            .collect()
    }

    #[test]
    fn the_more_loaded_of_two_is_not_picked() {
        let (balancer, endpoints) = (Balancer::default(), endpoints(2));
        let _busy = balancer.enter(endpoints[0].address);
        for _ in 0..50 {
            let (picked, _in_flight) = balancer.pick(&endpoints, &[]).unwrap();
            assert_eq!(picked.address, endpoints[1].address);
        }
    }

    #[test]
    fn requests_under_way_spread_evenly() {
        let (balancer, endpoints) = (Balancer::default(), endpoints(4));
        let held: Vec<_> = (0..400).map(|_| balancer.pick(&endpoints, &[]).unwrap()).collect();
        for endpoint in &endpoints {
            let count = held.iter().filter(|(picked, _)| picked.address == endpoint.address).count();
            assert!((80..=120).contains(&count), "{} has {count} of 400", endpoint.address);
        }
    }

    #[test]
    fn an_endpoint_that_was_tried_is_not_picked_again() {
        let (balancer, endpoints) = (Balancer::default(), endpoints(3));
        let tried = [endpoints[0].address, endpoints[2].address];
        assert_eq!(balancer.pick(&endpoints, &tried).unwrap().0.address, endpoints[1].address);
        let all: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        assert!(balancer.pick(&endpoints, &all).is_none());
    }

    #[test]
    fn an_endpoint_that_could_not_be_reached_is_the_last_choice() {
        let (balancer, endpoints) = (Balancer::default(), endpoints(5));
        for endpoint in &endpoints[1..] {
            balancer.failed(endpoint.address);
        }
        let _busy: Vec<_> = (0..9).map(|_| balancer.enter(endpoints[0].address)).collect();
        for _ in 0..50 {
            assert_eq!(balancer.pick(&endpoints, &[]).unwrap().0.address, endpoints[0].address);
        }
        assert!(balancer.pick(&endpoints[1..], &[]).is_some());
    }
}
