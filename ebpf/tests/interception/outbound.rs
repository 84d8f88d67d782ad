//! What happens to a pod's outbound connections.

use crate::{
    agent::Agent,
    world::{PEER, PEER_FAR, PEER6, POD, accept_from, at, mapped, world},
};
use fsm_ebpf::{Interceptor, OUTBOUND_PORT, Rules};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
};

const IP6T_SO_ORIGINAL_DST: i32 = 80;

/// What a proxy behind iptables would ask, and would be refused if nothing had been redirected.
pub fn original_destination(accepted: &TcpStream) -> io::Result<SocketAddr> {
    ask(accepted, libc::SOL_IP, libc::SO_ORIGINAL_DST).or_else(|_| ask(accepted, libc::SOL_IPV6, IP6T_SO_ORIGINAL_DST))
}

/// With room for any address, as libraries give; the answer must be just as long as its own kind.
#[expect(unsafe_code, reason = "no wrapper returns the length of the answer")]
fn ask(accepted: &TcpStream, level: i32, option: i32) -> io::Result<SocketAddr> {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&storage) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `storage`.
    let asked =
        unsafe { libc::getsockopt(accepted.as_raw_fd(), level, option, (&raw mut storage).cast(), &raw mut length) };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the storage is aligned and large enough for both structures.
    let (v4, v6) = unsafe {
        (*(&raw const storage).cast::<libc::sockaddr_in>(), *(&raw const storage).cast::<libc::sockaddr_in6>())
    };
    // Netfilter does not say how long its answer is.
    let sized = |size| length as usize == size || length as usize == size_of_val(&storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            assert!(sized(size_of_val(&v4)));
            Ok((Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)), u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            assert!(sized(size_of_val(&v6)));
            assert_eq!((v6.sin6_flowinfo, v6.sin6_scope_id), (0, 0));
            Ok((Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port)).into())
        }
        family => panic!("an answer of family {family}"),
    }
}

#[test]
fn a_connection_goes_to_the_proxy_which_learns_where_it_was_meant_to_go() {
    let Some(world) = world() else { return };
    let pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));

    let client = world.app.connect(at(PEER, 80)).unwrap();
    let accepted = accept_from(&proxy, &client);

    assert_eq!(original_destination(&accepted).unwrap(), at(PEER, 80));
    assert_eq!(client.peer_addr().unwrap(), at(PEER, 80), "the application sees the address it asked for");
    assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap(), "the proxy sees the application's");
    let stats = pod.stats().unwrap();
    assert_eq!((stats.outbound_redirected, stats.destinations_answered), (1, 1));
}

#[test]
fn the_destination_can_be_asked_again_and_belongs_to_its_connection() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    let held: Vec<_> = (1..=20u16)
        .map(|port| {
            let client = world.app.connect(at(PEER, port)).unwrap();
            let accepted = accept_from(&proxy, &client);
            (client, accepted, at(PEER, port))
        })
        .collect();
    for _ in 0..2 {
        for (client, accepted, meant) in &held {
            assert_eq!(original_destination(accepted).unwrap(), *meant);
            assert_eq!(client.peer_addr().unwrap(), *meant);
        }
    }
}

#[test]
fn an_ipv6_socket_connecting_to_an_ipv4_address_is_captured() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));

    let client = world.app.connect(mapped(PEER, 80)).unwrap();
    let accepted = accept_from(&proxy, &client);

    assert_eq!(original_destination(&accepted).unwrap(), at(PEER, 80));
    assert_eq!(client.peer_addr().unwrap(), mapped(PEER, 80));
}

#[test]
fn an_ipv6_connection_is_captured_by_a_proxy_that_listens_on_ipv6() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("::1", OUTBOUND_PORT));

    let client = world.app.connect(at(PEER6, 80)).unwrap();
    let accepted = accept_from(&proxy, &client);

    assert_eq!(original_destination(&accepted).unwrap(), at(PEER6, 80));
    assert_eq!(client.peer_addr().unwrap(), at(PEER6, 80));
}

#[test]
fn one_dual_stack_listener_captures_both_families() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("::", OUTBOUND_PORT));
    for to in [at(PEER, 80), at(PEER6, 81)] {
        let client = world.app.connect(to).unwrap();
        let accepted = accept_from(&proxy, &client);
        assert_eq!(original_destination(&accepted).unwrap(), to);
    }
}

#[test]
fn the_proxys_own_connections_go_direct() {
    let Some(world) = world() else { return };
    let pod = world.intercept(Rules::default());
    let _proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    let server = world.peer.listen(at(PEER, 80));

    let client = world.proxy.connect(at(PEER, 80)).unwrap();
    accept_from(&server, &client);

    assert_eq!(pod.stats().unwrap().outbound_exempt, 1);
}

#[test]
fn a_connection_nobody_redirected_has_no_original_destination() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    // The application dials the proxy itself.
    let client = world.app.connect(at("127.0.0.1", OUTBOUND_PORT)).unwrap();
    let accepted = accept_from(&proxy, &client);
    assert!(original_destination(&accepted).is_err());
    assert_eq!(client.peer_addr().unwrap(), at("127.0.0.1", OUTBOUND_PORT));
}

#[test]
fn other_socket_options_pass_untouched() {
    use nix::sys::socket::{getsockopt, setsockopt, sockopt};
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    let client = world.app.connect(at(PEER, 80)).unwrap();
    let accepted = accept_from(&proxy, &client);
    setsockopt(&accepted, sockopt::Ipv4Tos, &0x10).unwrap();
    assert_eq!(getsockopt(&accepted, sockopt::Ipv4Tos).unwrap(), 0x10);
    assert!(getsockopt(&accepted, sockopt::KeepAlive).is_ok());
    // A destination of the other family is not the answer to this question.
    ask(&accepted, libc::SOL_IPV6, IP6T_SO_ORIGINAL_DST).unwrap_err();
}

#[test]
fn rules_decide_what_is_captured_and_change_while_the_pod_runs() {
    let Some(world) = world() else { return };
    let mut pod = world.intercept(Rules::default());
    let proxy4 = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    let proxy6 = world.proxy.listen(at("::1", OUTBOUND_PORT));
    let destinations = [at(PEER, 80), at(PEER, 81), at(PEER_FAR, 80), at(PEER6, 80)];
    let servers = destinations.map(|destination| world.peer.listen(destination));

    let range = |text: &str| std::collections::BTreeSet::from([text.parse().unwrap()]);
    let everything = Rules::default();
    let by_port = Rules { outbound_port_exclusions: [81].into(), ..Rules::default() };
    let by_range = Rules { outbound_ip_range_exclusions: range("10.99.7.0/24"), ..Rules::default() };
    let by_range6 = Rules { outbound_ip_range_exclusions: range("fd99::/16"), ..Rules::default() };
    let no_ipv6 = Rules { outbound_ip_range_exclusions: range("::/0"), ..Rules::default() };
    let no_ipv4 = Rules { outbound_ip_range_exclusions: range("0.0.0.0/0"), ..Rules::default() };
    let included = Rules { outbound_ip_range_inclusions: range("10.99.7.0/24"), ..Rules::default() };
    let both = Rules { outbound_ip_range_exclusions: range("10.99.7.3/32"), ..included.clone() };
    let inbound_only = Rules { inbound_port_exclusions: [80, 81].into(), ..Rules::default() };

    for rules in [by_port, by_range, by_range6, no_ipv6, no_ipv4, included, both, inbound_only, everything] {
        pod.update(&rules).unwrap();
        for (destination, server) in destinations.iter().zip(&servers) {
            let client = world.app.connect(*destination).unwrap();
            if rules.captures_outbound(destination.ip(), destination.port()) {
                let proxy = if destination.is_ipv4() { &proxy4 } else { &proxy6 };
                let accepted = accept_from(proxy, &client);
                assert_eq!(original_destination(&accepted).unwrap(), *destination);
            } else {
                accept_from(server, &client);
            }
        }
    }
}

#[test]
fn loopback_is_never_captured() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let _proxy = world.proxy.listen(at("::", OUTBOUND_PORT));
    for (listen, connect) in
        [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::1", "::1"), ("127.9.9.9", "127.9.9.9")]
    {
        let server = world.app.listen(at(listen, 8080));
        let client = world.app.connect(at(connect, 8080)).unwrap();
        accept_from(&server, &client);
    }
}

#[test]
fn datagrams_are_not_touched() {
    let Some(world) = world() else { return };
    let pod = world.intercept(Rules::default());
    let _proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    let server = world.peer.udp(at(PEER, 53));
    let client = world.app.udp(at(POD, 0));

    client.connect(at(PEER, 53)).unwrap();
    client.send(b"question").unwrap();

    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"question");
    assert_eq!(from, client.local_addr().unwrap());
    assert_eq!(pod.stats().unwrap(), fsm_ebpf::PodStats::default());
}

#[test]
fn without_a_proxy_connections_are_refused_or_go_direct_as_configured() {
    let Some(world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let server = world.peer.listen(at(PEER, 80));
    for fail_closed in [true, false] {
        let pod = interceptor.attach(&world.spec(Rules::default(), fail_closed)).unwrap();
        let without_proxy = || {
            if fail_closed {
                assert_eq!(world.app.connect(at(PEER, 80)).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            } else {
                accept_from(&server, &world.app.connect(at(PEER, 80)).unwrap());
            }
        };
        let entries = interceptor.table_entries();
        without_proxy();
        assert_eq!(interceptor.table_entries(), entries, "nothing is remembered of a refused connection");
        let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
        accept_from(&proxy, &world.app.connect(at(PEER, 80)).unwrap());
        drop(proxy);
        without_proxy();
        assert_eq!(pod.stats().unwrap().outbound_without_proxy, 2);
    }
}

#[test]
fn an_application_cannot_pose_as_the_proxy() {
    let Some(world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let _pod = interceptor.attach(&world.spec(Rules::default(), false)).unwrap();
    let server = world.peer.listen(at(PEER, 80));
    let _impostor = world.app.listen(at("127.0.0.1", OUTBOUND_PORT));

    let client = world.app.connect(at(PEER, 80)).unwrap();

    accept_from(&server, &client);
}

#[test]
fn multipath_tcp_is_captured_like_any_other() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    let client = match world.app.connect_multipath(at(PEER, 80)) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::ENOPROTOOPT)) => {
            return println!("skipped: needs multipath TCP (CONFIG_MPTCP and net.mptcp.enabled)");
        }
        connected => connected.unwrap(),
    };
    let accepted = accept_from(&proxy, &client);
    assert_eq!(original_destination(&accepted).unwrap(), at(PEER, 80));
}

#[test]
fn captured_connections_do_not_share_one_range_of_ports() {
    let Some(world) = world() else { return };
    let _pod = world.intercept(Rules::default());
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    // Eight ports, so one proxy address could take eight connections.
    crate::world::inside(&world.pod_netns, || {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40007").unwrap();
    });
    let held: Vec<_> = (1..=100u16)
        .map(|port| {
            let client = world.app.connect(at(PEER, port)).unwrap();
            let accepted = accept_from(&proxy, &client);
            assert_eq!(original_destination(&accepted).unwrap(), at(PEER, port));
            (client, accepted)
        })
        .collect();
    assert!(held.iter().all(|(client, _)| (40000..=40007).contains(&client.local_addr().unwrap().port())));
}

#[test]
fn many_connections_at_once_keep_their_destinations() {
    let Some(world) = world() else { return };
    let interceptor = Interceptor::load().unwrap();
    let pod = interceptor.attach(&world.spec(Rules::default(), true)).unwrap();
    let before = interceptor.table_entries();
    let proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    const EACH: u16 = 250;
    std::thread::scope(|scope| {
        // The proxy answers every connection with the port it was meant for.
        scope.spawn(|| {
            for _ in 0..4 * EACH {
                let (accepted, _) = proxy.accept().unwrap();
                let meant = original_destination(&accepted).unwrap();
                (&accepted).write_all(&meant.port().to_be_bytes()).unwrap();
            }
        });
        for lane in 0..4 {
            let app = &world.app;
            scope.spawn(move || {
                for port in lane * EACH + 1..=(lane + 1) * EACH {
                    let mut client = app.connect(at(PEER, port)).unwrap();
                    let mut answer = [0; 2];
                    client.read_exact(&mut answer).unwrap();
                    assert_eq!(u16::from_be_bytes(answer), port);
                }
            });
        }
    });
    assert_eq!(pod.stats().unwrap().destinations_answered, u64::from(4 * EACH));
    // The listener's entry has come since; nothing is kept for each connection.
    assert_eq!(interceptor.table_entries(), before + 1);
}

#[test]
fn processes_of_the_pod_in_another_namespace_are_not_touched() {
    let (Some(world), Some(elsewhere)) = (world(), world()) else { return };
    let _pod = world.intercept(Rules::default());
    let _proxy = world.proxy.listen(at("127.0.0.1", OUTBOUND_PORT));
    let server = elsewhere.peer.listen(at(PEER, 80));
    let stray = Agent::start(&world.cgroups.app(), &elsewhere.pod_netns);
    accept_from(&server, &stray.connect(at(PEER, 80)).unwrap());
}
