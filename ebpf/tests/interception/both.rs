//! What a pod's connections do, whichever mechanism intercepts it.

use crate::{
    agent::Agent,
    outbound::original_destination,
    world::{PEER, PEER_FAR, PEER6, POD, POD6, World, accept_from, at, mapped, world},
};
use fsm_ebpf::{
    Attached, DNS_PORT, INBOUND_PORT, Interceptor, MESH_PORT, METRICS_PORT, Mechanism, OUTBOUND_PORT, PROBE_PORTS,
    Rules,
};
use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::OnceLock,
};

/// Runs `test` in a world of its own for each mechanism that this machine has.
fn with_each(rules: &Rules, test: impl Fn(&World, Attached)) {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| fsm_ebpf::probe().missing_for_nftables());
    if let Some(missing) = missing {
        println!("skipped for nftables: needs {missing}");
    }
    for nftables in [false, true] {
        if nftables && missing.is_some() {
            continue;
        }
        let Some(world) = world() else { return };
        let mechanism = if nftables { Mechanism::Nftables } else { Mechanism::Ebpf(Interceptor::load().unwrap()) };
        println!("with {}", mechanism.name());
        let pod = mechanism.attach(&world.spec(rules.clone(), true)).unwrap();
        test(&world, pod);
    }
}

/// Where a connection that the proxy accepted from outside was going: nf_tables translates the address.
fn inbound_destination(accepted: &TcpStream) -> std::net::SocketAddr {
    original_destination(accepted).unwrap_or_else(|_| accepted.local_addr().unwrap())
}

#[test]
fn connections_of_every_family_go_to_the_proxy_which_learns_where_they_were_going() {
    with_each(&Rules::default(), |world, _pod| {
        let proxy4 = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
        let proxy6 = world.proxy.listen(at("::1", OUTBOUND_PORT));
        for (dialled, meant) in
            [(at(PEER, 80), at(PEER, 80)), (mapped(PEER, 81), at(PEER, 81)), (at(PEER6, 80), at(PEER6, 80))]
        {
            let client = world.app.connect(dialled).unwrap();
            let accepted = accept_from(if meant.is_ipv4() { &proxy4 } else { &proxy6 }, &client);
            assert_eq!(original_destination(&accepted).unwrap(), meant);
            assert_eq!(client.peer_addr().unwrap(), dialled, "the application sees the address it asked for");
        }
    });
}

#[test]
fn the_proxys_connections_go_direct_and_so_do_those_of_a_restarted_one() {
    with_each(&Rules::default(), |world, mut pod| {
        let server = world.peer.listen(at(PEER, 80));
        accept_from(&server, &world.proxy.connect(at(PEER, 80)).unwrap());
        pod.set_proxy_cgroup(&world.cgroups.next_proxy()).unwrap();
        let restarted = Agent::start(&world.cgroups.next_proxy(), &world.pod_netns);
        accept_from(&server, &restarted.connect(at(PEER, 80)).unwrap());
        let proxy = restarted.listen(at("127.0.0.1", OUTBOUND_PORT));
        accept_from(&proxy, &world.proxy.connect(at(PEER, 80)).unwrap());
    });
}

#[test]
fn rules_decide_what_is_captured_and_change_while_the_pod_runs() {
    let range = |text: &str| BTreeSet::from([text.parse().unwrap()]);
    let exclude = |text: &str| Rules { outbound_ip_range_exclusions: range(text), ..Rules::default() };
    let included = Rules { outbound_ip_range_inclusions: range("10.99.7.0/24"), ..Rules::default() };
    let all = [
        Rules { outbound_port_exclusions: (60..=99).collect(), ..Rules::default() },
        exclude("10.99.7.0/24"),
        exclude("fd99::/64"),
        exclude("::/0"),
        exclude("0.0.0.0/0"),
        included.clone(),
        Rules { outbound_ip_range_exclusions: range("10.99.7.3/32"), ..included },
        Rules { inbound_port_exclusions: [80, 81].into(), ..Rules::default() },
        Rules::default(),
    ];
    with_each(&Rules::default(), |world, mut pod| {
        let proxy4 = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
        let proxy6 = world.proxy.listen(at("::1", OUTBOUND_PORT));
        let destinations = [at(PEER, 80), at(PEER, 81), at(PEER, 100), at(PEER_FAR, 80), at(PEER6, 80), at(PEER6, 100)];
        let servers: Vec<_> = destinations.iter().map(|address| world.peer.listen(*address)).collect();
        for rules in &all {
            pod.update(rules).unwrap();
            for (destination, server) in destinations.iter().zip(&servers) {
                let client = world.app.connect(*destination).unwrap();
                if rules.captures_outbound(destination.ip(), destination.port()) {
                    accept_from(if destination.is_ipv4() { &proxy4 } else { &proxy6 }, &client);
                } else {
                    accept_from(server, &client);
                }
            }
        }
    });
}

#[test]
fn many_ranges_are_taken() {
    let ranges =
        (0..3_000u32).map(|n| format!("{}/32", std::net::Ipv4Addr::from(0x0b00_0000 + 2 * n)).parse().unwrap());
    let rules = Rules { outbound_ip_range_exclusions: ranges.collect(), ..Rules::default() };
    with_each(&rules, |world, _pod| {
        let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
        accept_from(&proxy, &world.app.connect(at(PEER, 80)).unwrap());
    });
}

#[test]
fn loopback_and_datagrams_are_left_alone() {
    with_each(&Rules::default(), |world, _pod| {
        let _proxy = world.proxy.listen(at("::", OUTBOUND_PORT));
        for (listen, connect) in
            [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::1", "::1"), ("127.9.9.9", "127.9.9.9")]
        {
            let server = world.app.listen(at(listen, 8080));
            accept_from(&server, &world.app.connect(at(connect, 8080)).unwrap());
        }
        let server = world.peer.udp(at(PEER, 53));
        let client = world.app.udp(at(POD, 0));
        client.send_to(b"question", at(PEER, 53)).unwrap();
        let mut buffer = [0; 16];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (b"question".as_slice(), client.local_addr().unwrap()));
    });
}

#[test]
fn arriving_connections_go_to_the_proxy_which_learns_whom_they_are_for_and_from() {
    with_each(&Rules::default(), |world, _pod| {
        let proxy = world.proxy.listen(at("::", INBOUND_PORT));
        let _app = world.app.listen(at("::", 8080));
        // One port the application listens on, others that nobody or the proxy itself does.
        let _private = world.proxy.listen(at("::", 15000));
        for (pod, peer) in [(POD, PEER), (POD6, PEER6)] {
            for port in [8080, 8081, 15000, OUTBOUND_PORT] {
                let client = world.peer.connect(at(pod, port)).unwrap();
                let accepted = accept_from(&proxy, &client);
                let canonical = |address: std::net::SocketAddr| (address.ip().to_canonical(), address.port());
                assert_eq!(canonical(inbound_destination(&accepted)), canonical(at(pod, port)));
                assert_eq!(accepted.peer_addr().unwrap().ip().to_canonical(), at(peer, 0).ip());
            }
        }
    });
}

#[test]
fn excluded_ports_and_the_proxys_own_are_reached_directly() {
    with_each(&Rules { inbound_port_exclusions: [8080].into(), ..Rules::default() }, |world, mut pod| {
        let proxy = world.proxy.listen(at("0.0.0.0", INBOUND_PORT));
        let app = world.app.listen(at("0.0.0.0", 8080));
        accept_from(&app, &world.peer.connect(at(POD, 8080)).unwrap());
        accept_from(&proxy, &world.peer.connect(at(POD, 8081)).unwrap());
        for port in [MESH_PORT, METRICS_PORT, PROBE_PORTS.0, PROBE_PORTS.1] {
            let own = world.proxy.listen(at("0.0.0.0", port));
            accept_from(&own, &world.peer.connect(at(POD, port)).unwrap());
        }
        pod.update(&Rules::default()).unwrap();
        accept_from(&proxy, &world.peer.connect(at(POD, 8080)).unwrap());
    });
}

#[test]
fn connections_inside_the_pod_reach_the_application() {
    with_each(&Rules::default(), |world, _pod| {
        let _proxy = world.proxy.listen(at("::", INBOUND_PORT));
        let app = world.app.listen(at("::", 8080));
        accept_from(&app, &world.app.connect(at("127.0.0.1", 8080)).unwrap());
        for address in [POD, POD6] {
            accept_from(&app, &world.proxy.connect(at(address, 8080)).unwrap());
        }
    });
}

#[test]
fn a_pod_calling_itself_goes_through_its_proxy() {
    with_each(&Rules::default(), |world, _pod| {
        let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
        let _app = world.app.listen(at("::", 8080));
        let accepted = accept_from(&proxy, &world.app.connect(at(POD, 8080)).unwrap());
        assert_eq!(original_destination(&accepted).unwrap(), at(POD, 8080));
    });
}

#[test]
fn without_a_proxy_connections_are_refused() {
    with_each(&Rules::default(), |world, _pod| {
        let _server = world.peer.listen(at(PEER, 80));
        let _app = world.app.listen(at("0.0.0.0", 8080));
        assert_eq!(world.app.connect(at(PEER, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(world.peer.connect(at(POD, 8080)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn detaching_and_attaching_again_leaves_one_of_everything() {
    with_each(&Rules::default(), |world, pod| {
        let server = world.peer.listen(at(PEER, 80));
        pod.detach().unwrap();
        accept_from(&server, &world.app.connect(at(PEER, 80)).unwrap());
    });
}

/// Answers one question on `server`, and gives what `client` heard and from whom.
fn answered(server: &UdpSocket, client: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).expect("no question arrived here");
    assert_eq!(&buffer[..length], b"question");
    server.send_to(b"answer", from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
    from
}

#[test]
fn questions_for_names_go_to_the_proxy_and_answers_seem_to_come_from_whom_was_asked() {
    let rules = Rules { dns_capture: true, ..Rules::default() };
    with_each(&rules, |world, mut pod| {
        let _listener =
            (world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT)), world.proxy.listen(at("::1", OUTBOUND_PORT)));
        let (proxy4, proxy6) = (world.proxy.udp(at("127.0.0.1", DNS_PORT)), world.proxy.udp(at("::1", DNS_PORT)));
        for (server, proxy) in [(at(PEER, 53), &proxy4), (at(PEER6, 53), &proxy6), (mapped(PEER, 53), &proxy4)] {
            let any = if server.is_ipv4() { "0.0.0.0" } else { "::" };
            let client = world.app.udp(at(any, 0));
            for server in [server, if server == at(PEER, 53) { at(PEER_FAR, 53) } else { server }] {
                client.send_to(b"question", server).unwrap();
                assert_eq!(answered(proxy, &client), server, "not connected");
            }
            let connected = world.app.ask(server);
            connected.send(b"question").unwrap();
            assert_eq!(answered(proxy, &connected), server, "connected");
            assert_eq!(connected.peer_addr().unwrap(), server);
        }
        let direct = |client: &UdpSocket, to: SocketAddr| {
            let server = world.peer.udp(to);
            client.send_to(b"question", to).unwrap();
            assert_eq!(answered(&server, client), to);
        };
        direct(&world.app.udp(at(POD, 0)), at(PEER, 5353));
        let server = world.peer.udp(at(PEER, 53));
        let own = world.proxy.ask(at(PEER, 53));
        own.send(b"question").unwrap();
        assert_eq!(answered(&server, &own), at(PEER, 53), "the proxy's own questions");
        drop(server);
        pod.update(&Rules { outbound_port_exclusions: [53].into(), ..rules.clone() }).unwrap();
        direct(&world.app.udp(at(POD, 0)), at(PEER, 53));
        pod.update(&Rules::default()).unwrap();
        direct(&world.app.udp(at(POD, 0)), at(PEER, 53));
    });
}
