//! The node's agent, from what it is told of pods to what their connections do.

use crate::{
    agent::Agent,
    world::{NEXT_PROXY, PEER, PROXY, UID, World, accept_from, at, eventually, world},
};
use fsm_ebpf::{
    Interceptor, Mechanism, OUTBOUND_PORT, Rules,
    agent::{Node, Settings, Summary, Wanted, netns_number},
};
use std::fs::File;

fn node(world: &World) -> Node {
    let node_netns = netns_number(&File::open("/proc/self/ns/net").unwrap()).unwrap();
    let settings = Settings { cgroup_root: world.cgroups.root().to_owned(), fail_closed: true, node_netns };
    Node::new(Mechanism::Ebpf(Interceptor::load().unwrap()), settings)
}

fn wanted(proxy: Option<&str>, rules: Rules) -> Wanted {
    Wanted { name: "shop/web".to_owned(), uid: UID.to_owned(), proxy: proxy.map(str::to_owned), rules }
}

#[test]
fn a_pod_is_intercepted_from_the_moment_its_proxy_runs_until_it_is_gone() {
    let Some(world) = world() else { return };
    let mut node = node(&world);
    let server = world.peer.listen(at(PEER, 80));
    assert_eq!(node.reconcile(&[wanted(None, Rules::default())]), 0);
    assert_eq!(node.summary(1), Summary { waiting: 1, ..Summary::default() });
    accept_from(&server, &world.app.connect(at(PEER, 80)).unwrap());

    let proxy = world.proxy.listen_and_hold(at("127.0.0.1", OUTBOUND_PORT));
    assert_eq!(node.reconcile(&[wanted(Some(PROXY), Rules::default())]), 0);
    accept_from(&proxy, &world.app.connect(at(PEER, 80)).unwrap());

    // Rules change live.
    let excluded = Rules { outbound_port_exclusions: [80].into(), ..Rules::default() };
    assert_eq!(node.reconcile(&[wanted(Some(PROXY), excluded)]), 0);
    accept_from(&server, &world.app.connect(at(PEER, 80)).unwrap());

    // Its object goes first: its processes stay captured to their end.
    assert_eq!(node.reconcile(&[]), 0);
    accept_from(&proxy, &world.app.connect(at(PEER, 81)).unwrap());
    let summary = node.summary(0);
    assert_eq!((summary.attached, summary.stats.outbound_redirected, summary.stats.outbound_excluded), (1, 2, 1));
    let World { app, proxy: process, peer, pod_netns, cgroups } = world;
    drop((app, process, peer));
    cgroups.remove().unwrap();
    drop(pod_netns);
    eventually("the pod is let go", || {
        node.reconcile(&[]);
        node.summary(0) == Summary::default()
    });
}

#[test]
fn a_restarted_proxy_is_followed_to_its_new_container() {
    let Some(world) = world() else { return };
    let mut node = node(&world);
    node.reconcile(&[wanted(Some(PROXY), Rules::default())]);
    let first = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    accept_from(&first, &world.app.connect(at(PEER, 80)).unwrap());
    drop(first);

    let restarted = Agent::start(&world.cgroups.next_proxy(), &world.pod_netns);
    let second = restarted.listen_and_hold(at("127.0.0.1", OUTBOUND_PORT));
    assert_eq!(node.reconcile(&[wanted(Some(NEXT_PROXY), Rules::default())]), 0);
    accept_from(&second, &world.app.connect(at(PEER, 80)).unwrap());
    assert_eq!(node.summary(1).attached, 1);
}

#[test]
fn a_container_that_cannot_be_found_is_asked_for_again() {
    let Some(world) = world() else { return };
    let mut node = node(&world);
    assert_eq!(node.reconcile(&[wanted(Some("0123"), Rules::default())]), 1);
    assert_eq!(node.summary(1), Summary { waiting: 1, ..Summary::default() });
}

#[test]
fn the_nodes_own_network_is_never_intercepted() {
    let Some(world) = world() else { return };
    let mut node = node(&world);
    let namespace = File::open("/proc/self/ns/net").unwrap();
    let _in_host_network = Agent::start(&world.cgroups.next_proxy(), &namespace);
    assert_eq!(node.reconcile(&[wanted(Some(NEXT_PROXY), Rules::default())]), 1);
    assert_eq!(node.summary(1), Summary { waiting: 1, failures: 1, ..Summary::default() });
}
