use std::net::SocketAddr;
use std::time::Duration;

use fsm_proxy_config::proto::{self, BalancerAlgorithm, LoadBalancer, TrafficPolicy};
use fsm_proxy_config::traffic::Feedback;
use fsm_proxy_config::{Backend, Connection, Decision, Resource, Snapshot, decide};

use super::*;
use crate::sidecar::tests::mesh::{Resources, VIP};

fn addresses(count: u8) -> Vec<SocketAddr> {
    (1..=count).map(|last| SocketAddr::from(([10, 0, 0, last], 80))).collect()
}

fn snapshot(addresses: &[SocketAddr], balancer: LoadBalancer) -> Arc<Snapshot> {
    let policy = TrafficPolicy { load_balancer: Some(balancer), ..Default::default() };
    Resources::new("buyer", &[])
        .service("shop/store", "10.96.0.1", proto::Protocol::Http)
        .endpoints("shop/store", addresses, "")
        .with("shop/store", Resource::TrafficPolicy(policy))
        .snapshot("")
}

fn by(algorithm: BalancerAlgorithm) -> LoadBalancer {
    LoadBalancer { algorithm: algorithm.into(), ..LoadBalancer::default() }
}

fn backend(snapshot: &Snapshot) -> Backend<'_> {
    match decide(snapshot, &Connection::Outbound { destination: VIP }, None) {
        Decision::Forward(forward) => forward.pick_backend(0),
        other => panic!("{other}"),
    }
}

/// A balancer with one pool, as requests find it.
struct Fixture {
    balancer: Balancer,
    snapshot: Arc<Snapshot>,
    addresses: Vec<SocketAddr>,
}

impl Fixture {
    fn new(count: u8, balancer: LoadBalancer) -> Self {
        let addresses = addresses(count);
        Self { balancer: Balancer::new(&Arc::default()), snapshot: snapshot(&addresses, balancer), addresses }
    }

    fn pick(&self, tried: &[SocketAddr]) -> Option<Picked<'_>> {
        let backend = backend(&self.snapshot);
        self.balancer.pool(&backend).pick(&backend, None, tried)
    }

    fn pool(&self) -> &Pool {
        self.balancer.pool(&backend(&self.snapshot))
    }

    /// One under way at each of these.
    fn hold(&self, wanted: &[SocketAddr]) -> Vec<Picked<'_>> {
        let others = |one: &SocketAddr| self.addresses.iter().copied().filter(|other| other != one).collect::<Vec<_>>();
        wanted.iter().map(|one| self.pick(&others(one)).unwrap()).collect()
    }
}

#[test]
fn the_more_loaded_of_two_is_not_picked() {
    let fixture = Fixture::new(2, LoadBalancer::default());
    let _busy = fixture.hold(&fixture.addresses[..1]);
    for _ in 0..50 {
        assert_eq!(fixture.pick(&[]).unwrap().endpoint.address, fixture.addresses[1]);
    }
}

#[test]
fn requests_under_way_spread_evenly() {
    let fixture = Fixture::new(4, LoadBalancer::default());
    let held: Vec<_> = (0..400).map(|_| fixture.pick(&[]).unwrap()).collect();
    for address in &fixture.addresses {
        let count = held.iter().filter(|picked| picked.endpoint.address == *address).count();
        assert!((80..=120).contains(&count), "{address} has {count} of 400");
    }
}

#[test]
fn an_endpoint_that_was_tried_is_not_picked_again() {
    for algorithm in [BalancerAlgorithm::LeastRequest, BalancerAlgorithm::PeakEwma, BalancerAlgorithm::RoundRobin] {
        let fixture = Fixture::new(3, by(algorithm));
        let tried = [fixture.addresses[0], fixture.addresses[2]];
        for _ in 0..9 {
            assert_eq!(fixture.pick(&tried).unwrap().endpoint.address, fixture.addresses[1]);
        }
        assert!(fixture.pick(&fixture.addresses).is_none());
    }
}

#[test]
fn an_endpoint_that_could_not_be_reached_is_the_last_choice() {
    for algorithm in [BalancerAlgorithm::LeastRequest, BalancerAlgorithm::PeakEwma, BalancerAlgorithm::RoundRobin] {
        let fixture = Fixture::new(5, by(algorithm));
        for picked in fixture.hold(&fixture.addresses[1..]) {
            fixture.pool().unreachable(&picked);
        }
        let _busy = fixture.hold(&[fixture.addresses[0]; 9]);
        for _ in 0..50 {
            assert_eq!(fixture.pick(&[]).unwrap().endpoint.address, fixture.addresses[0]);
        }
        assert!(fixture.pick(&fixture.addresses[..1]).is_some());
        let state = fixture.balancer.state("shop/store", 80, fixture.addresses[1]).unwrap();
        assert!(state.unreachable, "{state:?}");
    }
}

#[test]
fn the_slower_one_is_picked_only_when_the_faster_one_has_more_to_do() {
    let fixture = Fixture::new(2, by(BalancerAlgorithm::PeakEwma));
    for (picked, latency) in fixture.hold(&fixture.addresses).iter().zip([10, 45]) {
        fixture.pool().went(picked, Some(Duration::from_millis(latency)), Feedback::Well);
    }
    let mut held = Vec::new();
    // 10 × (n + 1) stays below 45 × 1 for three, and a fourth one is as good as the other.
    for _ in 0..3 {
        held.push(fixture.pick(&[]).unwrap());
        assert_eq!(held.last().unwrap().endpoint.address, fixture.addresses[0]);
    }
    held.extend(fixture.hold(&fixture.addresses[..1]));
    assert_eq!(fixture.pick(&[]).unwrap().endpoint.address, fixture.addresses[1]);
}

#[test]
fn a_failure_does_not_make_an_endpoint_look_fast() {
    let fixture = Fixture::new(1, by(BalancerAlgorithm::PeakEwma));
    let picked = fixture.pick(&[]).unwrap();
    fixture.pool().went(&picked, Some(Duration::from_millis(80)), Feedback::Well);
    fixture.pool().went(&picked, Some(Duration::from_micros(10)), Feedback::Error);
    let latency = fixture.balancer.state("shop/store", 80, fixture.addresses[0]).unwrap().latency_ms.unwrap();
    assert!(latency >= 80.0, "{latency}");
}

#[test]
fn in_round_robin_each_has_its_turn() {
    let fixture = Fixture::new(3, by(BalancerAlgorithm::RoundRobin));
    let picked: Vec<_> = (0..9).map(|_| fixture.pick(&[]).unwrap().endpoint.address).collect();
    for turn in picked.windows(3) {
        assert!(fixture.addresses.iter().all(|address| turn.contains(address)), "{picked:?}");
    }
}

#[test]
fn what_is_known_outlasts_a_configuration_and_not_the_endpoint() {
    let fixture = Fixture::new(2, by(BalancerAlgorithm::PeakEwma));
    let held = fixture.hold(&fixture.addresses);
    fixture.pool().went(&held[0], Some(Duration::from_millis(70)), Feedback::Well);
    let next = Fixture { snapshot: snapshot(&addresses(3), by(BalancerAlgorithm::LeastRequest)), ..fixture };
    let in_flight = |address| next.balancer.state("shop/store", 80, address).map(|state| state.in_flight);
    assert_eq!(next.pick(&addresses(2)).unwrap().endpoint.address, addresses(3)[2]);
    assert_eq!((in_flight(addresses(3)[0]), in_flight(addresses(3)[2])), (Some(1), Some(0)));

    let Fixture { balancer, .. } = next;
    let less = snapshot(&addresses(1), LoadBalancer::default());
    balancer.tidy(&less);
    assert!(balancer.state("shop/store", 80, addresses(1)[0]).is_some());
    assert_eq!(balancer.state("shop/store", 80, addresses(2)[1]), None);
    balancer.tidy(&Resources::new("buyer", &[]).snapshot(""));
    assert_eq!(balancer.state("shop/store", 80, addresses(1)[0]), None);
}

#[test]
fn a_new_endpoint_begins_slowly_and_those_of_the_beginning_do_not() {
    let slow_start = proto::SlowStart { window_ms: 3_600_000, min_weight_percent: 1, ..Default::default() };
    let balancer = LoadBalancer { slow_start: Some(slow_start), ..by(BalancerAlgorithm::RoundRobin) };
    let fixture = Fixture::new(2, balancer.clone());
    let turns = |fixture: &Fixture, last: SocketAddr| {
        (0..200).filter(|_| fixture.pick(&[]).unwrap().endpoint.address == last).count()
    };
    assert_eq!(turns(&fixture, fixture.addresses[1]), 100);
    let next = Fixture { snapshot: snapshot(&addresses(3), balancer), ..fixture };
    let turns = turns(&next, addresses(3)[2]);
    assert!((1..=8).contains(&turns), "{turns} of 200");
}
