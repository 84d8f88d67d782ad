//! What happens to connections that arrive at a pod.

use crate::world::{PEER, PEER6, POD, POD6, accept_from, at, world};
use fsm_ebpf::{INBOUND_PORT, Interceptor, MESH_PORT, METRICS_PORT, PROBE_PORTS, Rules};
use std::io::ErrorKind;

#[test]
fn an_arriving_connection_goes_to_the_proxy_with_its_addresses_kept() {
    let Some(world) = world() else { return };
    let pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("0.0.0.0", INBOUND_PORT));
    let _app = world.app.listen(at("0.0.0.0", 8080));

    // One port the application listens on, and one nobody does.
    for port in [8080, 8081] {
        let client = world.peer.connect(at(POD, port)).unwrap();
        let accepted = accept_from(&proxy, &client);
        assert_eq!(accepted.local_addr().unwrap(), at(POD, port), "the original destination");
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
        assert_eq!(accepted.peer_addr().unwrap().ip(), at(PEER, 0).ip(), "the real client");
    }
    assert_eq!(pod.stats().unwrap().inbound_steered, 2);
}

#[test]
fn an_arriving_ipv6_connection_goes_to_the_proxy() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("::", INBOUND_PORT));

    let client = world.peer.connect(at(POD6, 8080)).unwrap();
    let accepted = accept_from(&proxy, &client);
    assert_eq!(accepted.local_addr().unwrap(), at(POD6, 8080));
    assert_eq!(accepted.peer_addr().unwrap().ip(), at(PEER6, 0).ip());

    // The same listener takes IPv4.
    accept_from(&proxy, &world.peer.connect(at(POD, 8080)).unwrap());
}

#[test]
fn an_ipv4_listener_beside_an_ipv6_one_keeps_its_family() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy4 = world.proxy.listen(at("0.0.0.0", INBOUND_PORT));
    let proxy6 = world.proxy.listen(at(POD6, INBOUND_PORT));
    accept_from(&proxy4, &world.peer.connect(at(POD, 8080)).unwrap());
    accept_from(&proxy6, &world.peer.connect(at(POD6, 8080)).unwrap());
}

#[test]
fn connections_inside_the_pod_are_not_steered() {
    let Some(world) = world() else { return };
    let pod = world.intercept(Rules::default());
    let _proxy = world.proxy.listen(at("::", INBOUND_PORT));
    let app = world.app.listen(at("::", 8080));

    for address in ["127.0.0.1", "::1"] {
        accept_from(&app, &world.app.connect(at(address, 8080)).unwrap());
    }
    // As the proxy dials the application when it must use the pod's address.
    for address in [POD, POD6] {
        accept_from(&app, &world.proxy.connect(at(address, 8080)).unwrap());
    }

    assert_eq!(pod.stats().unwrap().inbound_steered, 0);
}

#[test]
fn excluded_ports_are_reached_directly_and_the_list_changes_while_the_pod_runs() {
    let Some(world) = world() else { return };
    let mut pod = world.intercept(Rules { inbound_port_exclusions: [8080].into(), ..Rules::default() });
    let proxy = world.proxy.listen(at("0.0.0.0", INBOUND_PORT));
    let app = world.app.listen(at("0.0.0.0", 8080));

    accept_from(&app, &world.peer.connect(at(POD, 8080)).unwrap());
    accept_from(&proxy, &world.peer.connect(at(POD, 8081)).unwrap());
    assert_eq!(pod.stats().unwrap().inbound_excluded, 1);

    // The same number as an outbound port means nothing here.
    pod.update(&Rules { outbound_port_exclusions: [8080].into(), ..Rules::default() }).unwrap();
    accept_from(&proxy, &world.peer.connect(at(POD, 8080)).unwrap());
}

#[test]
fn the_proxys_own_ports_are_reached_directly() {
    let Some(world) = world() else { return };
    let pod = world.intercept(Rules::default());
    let _capture = world.proxy.listen(at("0.0.0.0", INBOUND_PORT));
    for port in [MESH_PORT, METRICS_PORT, PROBE_PORTS.0, PROBE_PORTS.0 + 1, PROBE_PORTS.1] {
        let own = world.proxy.listen(at("0.0.0.0", port));
        let client = world.peer.connect(at(POD, port)).unwrap();
        assert_eq!(accept_from(&own, &client).local_addr().unwrap(), at(POD, port));
    }
    assert_eq!(pod.stats().unwrap().inbound_steered, 0);
}

#[test]
fn the_proxys_private_ports_are_not_reachable_from_outside() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let capture = world.proxy.listen(at("0.0.0.0", INBOUND_PORT));
    for port in [15000, fsm_ebpf::OUTBOUND_PORT] {
        let _private = world.proxy.listen(at("0.0.0.0", port));
        let client = world.peer.connect(at(POD, port)).unwrap();
        assert_eq!(accept_from(&capture, &client).local_addr().unwrap(), at(POD, port));
    }
}

#[test]
fn without_a_proxy_arrivals_are_refused_or_go_direct_as_configured() {
    let Some(world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let app = world.app.listen(at("0.0.0.0", 8080));
    for fail_closed in [true, false] {
        let pod = interceptor.attach(&world.spec(Rules::default(), fail_closed)).unwrap();
        let without_proxy = || {
            if fail_closed {
                assert_eq!(world.peer.connect(at(POD, 8080)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            } else {
                accept_from(&app, &world.peer.connect(at(POD, 8080)).unwrap());
            }
        };
        without_proxy();
        let proxy = world.proxy.listen(at("0.0.0.0", INBOUND_PORT));
        accept_from(&proxy, &world.peer.connect(at(POD, 8080)).unwrap());
        drop(proxy);
        without_proxy();
        assert_eq!(pod.stats().unwrap().inbound_without_proxy, 2);
    }
}

#[test]
fn an_application_on_the_capture_port_gets_nobody_elses_connections() {
    let Some(world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let _pod = interceptor.attach(&world.spec(Rules::default(), true)).unwrap();
    let _impostor = world.app.listen(at("0.0.0.0", INBOUND_PORT));
    assert_eq!(world.peer.connect(at(POD, 8080)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
