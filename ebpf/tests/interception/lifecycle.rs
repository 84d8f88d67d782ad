//! Attaching, changing and detaching pods.

use crate::{
    agent::Agent,
    world::{Cgroups, PEER, POD, accept_from, at, new_netns, world},
};
use fsm_ebpf::{INBOUND_PORT, InterceptError, Interceptor, OUTBOUND_PORT, PodSpec, Rules};
use std::{fs::File, os::fd::AsFd};

#[test]
fn detaching_leaves_nothing_and_attaching_again_finds_the_running_proxy() {
    let Some(world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let rules = Rules::from_annotations([
        (fsm_ebpf::OUTBOUND_PORT_EXCLUSION_LIST, "1,2,3"),
        (fsm_ebpf::OUTBOUND_IP_RANGE_EXCLUSION_LIST, "10.1.0.0/16,fd01::/64"),
        (fsm_ebpf::OUTBOUND_IP_RANGE_INCLUSION_LIST, "10.99.0.0/16"),
        (fsm_ebpf::INBOUND_PORT_EXCLUSION_LIST, "4"),
    ])
    .unwrap();
    let server = world.peer.listen(at(PEER, 80));
    let app = world.app.listen(at("0.0.0.0", 8080));
    // The proxy runs all the time, as when the node's agent restarts.
    let outbound = world.proxy.listen_and_hold(at("127.0.0.1", OUTBOUND_PORT));
    let inbound = world.proxy.listen_and_hold(at("::", INBOUND_PORT));

    for _ in 0..2 {
        let mut pod = interceptor.attach(&world.spec(rules.clone(), true)).unwrap();
        pod.update(&Rules::default()).unwrap();
        pod.update(&rules).unwrap();
        accept_from(&outbound, &world.app.connect(at(PEER, 80)).unwrap());
        accept_from(&inbound, &world.peer.connect(at(POD, 8080)).unwrap());
        assert!(interceptor.table_entries() > 0);
        drop(pod);

        assert_eq!(interceptor.table_entries(), 0);
        accept_from(&server, &world.app.connect(at(PEER, 80)).unwrap());
        accept_from(&app, &world.peer.connect(at(POD, 8080)).unwrap());
    }
}

#[test]
fn connections_captured_before_detaching_live_on() {
    use std::io::{Read, Write};
    let Some(world) = world() else { return };
    let pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    let mut client = world.app.connect(at(PEER, 80)).unwrap();
    let mut accepted = accept_from(&proxy, &client);
    drop(pod);
    client.write_all(b"still here").unwrap();
    let mut buffer = [0; 10];
    accepted.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still here");
}

#[test]
fn a_pod_is_attached_once_and_a_refused_attachment_changes_nothing() {
    let Some(world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let pod = interceptor.attach(&world.spec(Rules::default(), true)).unwrap();
    let entries = interceptor.table_entries();

    let refused = interceptor.attach(&world.spec(Rules::default(), false)).unwrap_err();

    assert!(matches!(refused, InterceptError::AlreadyAttached { .. }), "{refused}");
    assert_eq!(interceptor.table_entries(), entries);
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    accept_from(&proxy, &world.app.connect(at(PEER, 80)).unwrap());
    drop(pod);
}

#[test]
fn what_is_no_cgroup_or_namespace_is_refused_by_name_and_leaves_nothing() {
    let Some(world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let mut spec = world.spec(Rules::default(), true);
    spec.cgroup = "/sys/fs/cgroup/no-such-pod".into();
    let refused = interceptor.attach(&spec).unwrap_err().to_string();
    assert!(refused.contains("/sys/fs/cgroup/no-such-pod is not a cgroup v2 directory"), "{refused}");

    let file = tempfile::tempfile().unwrap();
    let mut spec = world.spec(Rules::default(), true);
    spec.netns = file.as_fd();
    let refused = interceptor.attach(&spec).unwrap_err().to_string();
    assert!(refused.contains("network namespace"), "{refused}");
    assert_eq!(interceptor.table_entries(), 0);
}

#[test]
fn a_restarted_proxy_is_known_by_its_new_cgroup() {
    let Some(world) = world() else { return };
    let mut pod = world.intercept(Rules::default());
    let first = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    accept_from(&first, &world.app.connect(at(PEER, 80)).unwrap());
    drop(first);

    pod.set_proxy_cgroup(&world.cgroups.next_proxy()).unwrap();
    let restarted = Agent::start(&world.cgroups.next_proxy(), &world.pod_netns);
    let second = restarted.listen(at("127.0.0.1", OUTBOUND_PORT));
    accept_from(&second, &world.app.connect(at(PEER, 80)).unwrap());
    let server = world.peer.listen(at(PEER, 80));
    accept_from(&server, &restarted.connect(at(PEER, 80)).unwrap());
    // What runs in the old cgroup is not the proxy any more.
    accept_from(&second, &world.proxy.connect(at(PEER, 80)).unwrap());
}

#[test]
fn interceptors_and_their_pods_do_not_disturb_each_other() {
    let (Some(one), Some(two)) = (world(), world()) else { return };
    let interceptor = Interceptor::load().unwrap();
    let pod_one = interceptor.attach(&one.spec(Rules::default(), true)).unwrap();
    let pod_two = Interceptor::load()
        .unwrap()
        .attach(&two.spec(Rules { outbound_port_exclusions: [80].into(), ..Rules::default() }, true))
        .unwrap();
    let (proxy_one, proxy_two) =
        (one.proxy.listen(at("127.0.0.1", OUTBOUND_PORT)), two.proxy.listen(at("127.0.0.1", OUTBOUND_PORT)));

    accept_from(&proxy_one, &one.app.connect(at(PEER, 80)).unwrap());
    accept_from(&proxy_two, &two.app.connect(at(PEER, 81)).unwrap());
    assert_eq!(pod_one.stats().unwrap().outbound_redirected, 1);
    assert_eq!(pod_two.stats().unwrap().outbound_redirected, 1);

    drop((pod_one, interceptor));
    accept_from(&proxy_two, &two.app.connect(at(PEER, 82)).unwrap());
}

#[test]
fn two_pods_of_one_interceptor_keep_their_own_rules() {
    let (Some(one), Some(two)) = (world(), world()) else { return };
    let interceptor = Interceptor::load().unwrap();
    let pod_one = interceptor
        .attach(&one.spec(Rules { outbound_port_exclusions: [80].into(), ..Rules::default() }, true))
        .unwrap();
    let pod_two = interceptor.attach(&two.spec(Rules::default(), true)).unwrap();
    // The pods keep the programs loaded.
    drop(interceptor);
    let server = one.peer.listen(at(PEER, 80));
    let proxy = two.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));

    accept_from(&server, &one.app.connect(at(PEER, 80)).unwrap());
    accept_from(&proxy, &two.app.connect(at(PEER, 80)).unwrap());
    drop(pod_one);
    accept_from(&proxy, &two.app.connect(at(PEER, 80)).unwrap());
    drop(pod_two);
}

#[test]
fn many_pods_are_attached_at_once_and_detached() {
    let Some(_world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let rules = Rules { outbound_port_exclusions: (1..=20).collect(), ..Rules::default() };
    // Threads attach them at the same time, as a node's agent would after a restart.
    let pods: Vec<_> = (0..32).map(|_| (new_netns(), Cgroups::new())).collect();
    let attach = &|(netns, cgroups): &(File, Cgroups)| {
        let (cgroup, proxy_cgroup) = (cgroups.pod(), cgroups.proxy());
        let spec = PodSpec { netns: netns.as_fd(), cgroup, proxy_cgroup, rules: rules.clone(), fail_closed: true };
        interceptor.attach(&spec).unwrap()
    };
    let attached: Vec<_> = std::thread::scope(|scope| {
        let parts: Vec<_> =
            pods.chunks(8).map(|part| scope.spawn(move || part.iter().map(attach).collect::<Vec<_>>())).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    // For each pod an entry, its counters and twenty ports.
    assert_eq!(interceptor.table_entries(), 32 * 22);
    // Pods may end before they are detached: their cgroups and namespaces go, and say so if they cannot.
    for (netns, cgroups) in pods {
        cgroups.remove().unwrap();
        drop(netns);
    }
    drop(attached);
    assert_eq!(interceptor.table_entries(), 0);
}
