//! The socket-lookup program by itself, without network: what it answers to connections made up for it. The kernel offers
//! this (`BPF_PROG_TEST_RUN`) for socket lookup; the programs at cgroups are tested with real sockets.

use crate::{
    abi::{AF_INET, AF_INET6, INBOUND_PORT, MESH_PORT, METRICS_PORT, OUTBOUND_PORT, PROBE_PORTS},
    bpffs::Bpffs,
    interceptor::{load_inbound, loader},
    listeners::Listener,
    netns::{socket_cookie, socket_netns_cookie},
    objects,
    rules::Rules,
    sys,
    tables::Tables,
};
use aya::{
    Ebpf,
    programs::{Program, SkLookup},
};
use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, AsRawFd},
};

const PASS: u32 = 1;
const DROP: u32 = 0;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// `struct bpf_sk_lookup` in words: the selected socket's cookie, then fields of four bytes.
type Context = [u64; 9];

struct Bench {
    tables: Tables,
    _sockets: Ebpf,
    inbound: Ebpf,
    netns: u64,
    _bpffs: Bpffs,
}

impl Bench {
    fn new() -> Option<Self> {
        let Ok(bpffs) = Bpffs::private() else {
            println!("skipped: needs root and eBPF");
            return None;
        };
        let mut loader = loader(&bpffs);
        let mut sockets = loader.load(objects::sockets()).unwrap();
        let tables = Tables::take(&mut sockets).unwrap();
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        let netns = socket_netns_cookie(own.as_raw_fd()).unwrap();
        let mut inbound = load_inbound(&mut loader, netns).unwrap();
        let program: &mut SkLookup = inbound.program_mut("inbound").unwrap().try_into().unwrap();
        program.load().unwrap();
        Some(Self { tables, _sockets: sockets, inbound, netns, _bpffs: bpffs })
    }

    fn pod(&mut self, rules: &Rules, fail_closed: bool) {
        let rules = self.tables.install_rules(rules).unwrap();
        self.tables.start_counters(self.netns).unwrap();
        self.tables.set_pod(self.netns, 1, &rules, fail_closed).unwrap();
    }

    /// What the program answers, and the cookie of the socket it gives the connection to.
    fn ask(&self, protocol: u8, from: &str, to: &str, port: u16) -> (u32, u64) {
        let at = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
        let mut context = context(protocol, at(from, 40_000), at(to, port));
        let program: &Program = self.inbound.program("inbound").unwrap();
        let verdict = sys::test_run(program.fd().unwrap().as_fd(), &mut context).unwrap();
        (verdict, context[0])
    }

    fn verdict(&self, port: u16) -> u32 {
        self.ask(TCP, "10.0.0.1", "10.0.0.2", port).0
    }
}

fn context(protocol: u8, remote: SocketAddr, local: SocketAddr) -> Context {
    let words = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => (u32::from_ne_bytes(v4.octets()), [0; 4]),
        IpAddr::V6(v6) => {
            let o = v6.octets();
            (0, [0, 4, 8, 12].map(|at: usize| u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]])))
        }
    };
    let ((remote4, remote6), (local4, local6)) = (words(remote.ip()), words(local.ip()));
    let family = if remote.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut fields = vec![u32::from(family), u32::from(protocol), remote4];
    fields.extend(remote6);
    fields.extend([u32::from(remote.port().to_be()), local4]);
    fields.extend(local6);
    // The interface must be 0 here, which is no interface and so not loopback.
    fields.extend([u32::from(local.port()), 0]);
    let mut context = Context::default();
    for (number, field) in fields.into_iter().enumerate() {
        let shift = if number % 2 == 0 { 0 } else { 32 };
        context[1 + number / 2] |= u64::from(field) << if cfg!(target_endian = "little") { shift } else { 32 - shift };
    }
    context
}

#[test]
fn without_proxy_only_what_is_left_alone_passes() {
    let Some(mut bench) = Bench::new() else { return };
    assert_eq!(bench.verdict(80), PASS, "a namespace of no pod");
    bench.pod(&Rules { inbound_port_exclusions: [8080].into(), ..Rules::default() }, true);
    for port in [8080, MESH_PORT, METRICS_PORT, PROBE_PORTS.0, PROBE_PORTS.1] {
        assert_eq!(bench.verdict(port), PASS, "{port}");
    }
    for port in [80, 8081, 15000, OUTBOUND_PORT, INBOUND_PORT, PROBE_PORTS.0 - 1, PROBE_PORTS.1 + 1] {
        assert_eq!(bench.verdict(port), DROP, "{port}");
    }
    assert_eq!(bench.ask(TCP, "fd00::1", "fd00::2", 80).0, DROP);
    assert_eq!(bench.ask(UDP, "10.0.0.1", "10.0.0.2", 80).0, PASS);
    for inside in ["10.0.0.2", "127.0.0.1"] {
        assert_eq!(bench.ask(TCP, inside, "10.0.0.2", 80).0, PASS, "from {inside}");
    }
    assert_eq!(bench.ask(TCP, "fd00::2", "fd00::2", 80).0, PASS);
}

#[test]
fn failing_open_everything_passes() {
    let Some(mut bench) = Bench::new() else { return };
    bench.pod(&Rules::default(), false);
    assert_eq!(bench.ask(TCP, "10.0.0.1", "10.0.0.2", 80), (PASS, 0));
}

#[test]
fn the_proxys_listener_of_the_family_is_chosen() {
    let Some(mut bench) = Bench::new() else { return };
    bench.pod(&Rules { inbound_port_exclusions: [8080].into(), ..Rules::default() }, true);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let key = crate::abi::ListenerKey { netns: bench.netns, family: AF_INET, port: INBOUND_PORT, pad: 0 };
    bench.tables.add_listeners(&[Listener { socket, keys: (key, None) }]).unwrap();
    // The socket went with the list, and its entry with it.
    assert_eq!(bench.verdict(80), DROP);

    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let kept = socket.try_clone().unwrap();
    bench.tables.add_listeners(&[Listener { socket, keys: (key, None) }]).unwrap();
    let chosen = socket_cookie(kept.as_raw_fd()).unwrap();
    assert_eq!(bench.ask(TCP, "10.0.0.1", "10.0.0.2", 80), (PASS, chosen));
    assert_eq!(bench.ask(TCP, "10.0.0.1", "10.0.0.2", 8080), (PASS, 0));
    assert_eq!(bench.ask(TCP, "fd00::1", "fd00::2", 80).0, DROP, "the other family has no listener");
}
