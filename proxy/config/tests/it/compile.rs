//! What cannot be used is refused as a whole, with the resource and the field.

use fsm_proxy_config::proto::{
    BalancerAlgorithm, CircuitBreaker, CircuitLimits, Endpoint, Endpoints, HashKey, HealthCheck, HttpCheck,
    LoadBalancer, OutlierDetection, PortMapping, RemoteLog, Retry, RetryBudget, Service, ServicePort, SessionCookie,
    SlowStart, Tracing, TrafficPolicy, ZoneClients, ZonePreference, hash_key, health_check::Probe,
};
use fsm_proxy_config::{Decision, Entry, Kind, Resource, Snapshot, check, explain};

use crate::mesh::{BUYER, Mesh, http, name, outbound, route, sentence, with_decision};

fn error(mesh: Mesh) -> String {
    Snapshot::compile(mesh.set).unwrap_err().to_string()
}

#[test]
fn an_invalid_field_is_named() {
    let endpoint = |address: &str, identity: &str| {
        let mut mesh = Mesh::new();
        let slice = Endpoints {
            service: "a/b".to_owned(),
            ports: vec![PortMapping { service_port: 80, target_port: 8080 }],
            endpoints: vec![Endpoint {
                address: address.to_owned(),
                identity: identity.to_owned(),
                ..Endpoint::default()
            }],
        };
        mesh.put("a/b-1", Resource::Endpoints(slice));
        error(mesh)
    };
    assert_eq!(endpoint("nowhere", ""), "Endpoints/a/b-1: endpoints[0].address: \"nowhere\" is not an IP address");
    assert!(endpoint("10.0.0.1", "me").starts_with("Endpoints/a/b-1: endpoints[0].identity: \"me\" is not a workload"));

    let mut mesh = Mesh::new();
    let port = ServicePort { port: 70_000, name: String::new(), protocol: 0 };
    mesh.put("a/b", Resource::Service(Service { ports: vec![port], ..Service::default() }));
    assert_eq!(error(mesh), "Service/a/b: ports[0].port: 70000 is not a port: expected 1 to 65535");

    let mut mesh = Mesh::new();
    let port = ServicePort { port: 80, name: String::new(), protocol: 99 };
    mesh.put("a/b", Resource::Service(Service { ports: vec![port], ..Service::default() }));
    assert_eq!(error(mesh), "Service/a/b: ports[0].protocol: 99 is an unknown protocol; upgrade this proxy");

    let mesh = Mesh::new().target("a/b", &[BUYER, "admin"], vec![]);
    assert!(error(mesh).starts_with("InboundPolicy/a/b: sources[1]: \"admin\" is not a workload identity"));
}

#[test]
fn addresses_of_servers_that_are_told_of_requests_are_urls() {
    let remote = |url: &str| {
        let url = url.to_owned();
        Mesh::new().settings(|settings| settings.remote_log = Some(RemoteLog { url, sampled_per_million: 1 }))
    };
    let expected = "Settings/settings: remote_log.url: \"logs:80\" is not http://host:port/path";
    assert_eq!(error(remote("logs:80")), expected);
    assert!(error(remote("https://logs/")).contains("is not http://"));
    assert!(remote("http://logs:8123/?query=a%20b").snapshot().settings().tells());
    let traced = |endpoint: &str| {
        let endpoint = endpoint.to_owned();
        Mesh::new().settings(|settings| settings.tracing = Some(Tracing { endpoint, sampled_per_million: 1 }))
    };
    assert_eq!(error(traced("otel")), "Settings/settings: tracing.endpoint: \"otel\" is not http://host:port");
}

#[test]
fn an_invalid_traffic_policy_is_named_with_a_remedy() {
    let named = |name: &str, policy: TrafficPolicy| {
        let mut mesh = Mesh::new();
        mesh.put(name, Resource::TrafficPolicy(policy));
        error(mesh)
    };
    let balanced = |change: &dyn Fn(&mut LoadBalancer)| {
        let mut balancer = LoadBalancer::default();
        change(&mut balancer);
        named("a/b", TrafficPolicy { load_balancer: Some(balancer), ..TrafficPolicy::default() })
    };
    let key = |of| HashKey { of: Some(of) };
    let hash = BalancerAlgorithm::ConsistentHash as i32;
    let session = |name: &str| Some(SessionCookie { name: name.to_owned(), max_age_s: 0 });
    let errors = [
        named("b", TrafficPolicy::default()),
        named("a/b:http", TrafficPolicy::default()),
        balanced(&|one| one.algorithm = 99),
        balanced(&|one| one.algorithm = hash),
        balanced(&|one| (one.algorithm, one.hash_keys) = (hash, vec![key(hash_key::Of::Header("x y".to_owned()))])),
        balanced(&|one| (one.algorithm, one.hash_keys) = (hash, vec![key(hash_key::Of::Path(false))])),
        balanced(&|one| one.hash_keys = vec![key(hash_key::Of::Path(true))]),
        balanced(&|one| (one.algorithm, one.zones) = (hash, Some(ZonePreference::default()))),
        balanced(&|one| one.session = session("fsm")),
        balanced(&|one| (one.algorithm, one.session) = (hash, session("a b"))),
        balanced(&|one| one.latency_decay_ms = 1),
        balanced(&|one| one.panic_threshold_percent = Some(101)),
        balanced(&|one| one.slow_start = Some(SlowStart::default())),
        balanced(&|one| {
            let clients = ["z", "z"].map(|zone| ZoneClients { zone: zone.to_owned(), clients: 1 });
            one.zones = Some(ZonePreference { clients: clients.into() });
        }),
    ];
    let retried = |change: &dyn Fn(&mut Retry)| {
        let mut retry = Retry { server_errors: true, ..Retry::default() };
        change(&mut retry);
        named("a/b", TrafficPolicy { retry: Some(retry), ..TrafficPolicy::default() })
    };
    let retries = [
        retried(&|one| one.server_errors = false),
        retried(&|one| one.statuses = vec![503, 200]),
        retried(&|one| one.grpc_statuses = vec![0]),
        retried(&|one| (one.backoff_base_ms, one.backoff_max_ms) = (100, 50)),
        retried(&|one| one.budget = Some(RetryBudget { percent: Some(101), ..RetryBudget::default() })),
    ];
    let ejecting = |change: &dyn Fn(&mut OutlierDetection)| {
        let mut outliers = OutlierDetection { consecutive_errors: 1, ..OutlierDetection::default() };
        change(&mut outliers);
        named("a/b", TrafficPolicy { outliers: Some(outliers), ..TrafficPolicy::default() })
    };
    let checked = |probe: Option<Probe>| {
        let check = HealthCheck { probe, ..HealthCheck::default() };
        named("a/b", TrafficPolicy { health_check: Some(check), ..TrafficPolicy::default() })
    };
    let asking = |path: &str, host: &str, status: u32| {
        let (path, host) = (path.to_owned(), host.to_owned());
        checked(Some(Probe::Http(HttpCheck { path, host, statuses: vec![200, status] })))
    };
    let breaking = |change: &dyn Fn(&mut CircuitBreaker)| {
        let mut breaker = CircuitBreaker { window_ms: 1, errors: 1, degraded_ms: 1, ..CircuitBreaker::default() };
        change(&mut breaker);
        named("a/b", TrafficPolicy { circuit_breaker: Some(breaker), ..TrafficPolicy::default() })
    };
    let others = [
        breaking(&|one| one.window_ms = 0),
        breaking(&|one| one.degraded_ms = 0),
        breaking(&|one| one.errors = 0),
        breaking(&|one| one.errors_per_million = 1_000_001),
        breaking(&|one| one.slow = 1),
        breaking(&|one| one.slow_after_ms = 1),
        breaking(&|one| one.degraded_status = 199),
        ejecting(&|one| one.consecutive_errors = 0),
        ejecting(&|one| (one.base_ejection_ms, one.max_ejection_ms) = (100, 50)),
        ejecting(&|one| one.max_ejection_percent = Some(101)),
        checked(None),
        checked(Some(Probe::Tcp(false))),
        asking("healthy", "", 200),
        asking("/", "a b", 200),
        asking("/", "", 20),
    ];
    insta::assert_snapshot!([&errors[..], &retries, &others].concat().join("\n"));
}

#[test]
fn the_policy_is_a_step_of_the_explanation() {
    let mut mesh = Mesh::bookstore();
    let policy = TrafficPolicy {
        retry: Some(Retry { resets: true, attempts: 2, ..Retry::default() }),
        request_timeout_ms: 3000,
        limits: Some(CircuitLimits { requests: 9, pending_requests: 4, ..CircuitLimits::default() }),
        ..TrafficPolicy::default()
    };
    mesh.put("bookstore/bookstore-v1", Resource::TrafficPolicy(policy));
    let (_, steps) = explain(&mesh.snapshot(), &outbound("10.96.0.11:14001"), None);
    let expected = "TrafficPolicy bookstore/bookstore-v1: bookstore/bookstore-v1 is balanced by least_request; sent again \
                    up to 2 times; 3000 ms for a request; at most 9 requests at once; at most 4 requests that wait \
                    for a connection at once";
    assert_eq!(steps[1], expected, "{steps:#?}");
}

#[test]
fn a_session_is_part_of_the_explanation() {
    let mut mesh = Mesh::bookstore();
    let balancer = LoadBalancer {
        algorithm: BalancerAlgorithm::ConsistentHash.into(),
        session: Some(SessionCookie { name: "fsm".to_owned(), max_age_s: 60 }),
        ..LoadBalancer::default()
    };
    let policy = TrafficPolicy { load_balancer: Some(balancer), ..TrafficPolicy::default() };
    mesh.put("bookstore/bookstore-v1", Resource::TrafficPolicy(policy));
    let (_, steps) = explain(&mesh.snapshot(), &outbound("10.96.0.11:14001"), None);
    assert!(steps[1].ends_with("is balanced by consistent_hash and sessions by the cookie fsm"), "{steps:#?}");
}

#[test]
fn dumps_show_a_policy_in_words() {
    let key = HashKey { of: Some(hash_key::Of::Header("x-user".to_owned())) };
    let balancer = LoadBalancer {
        algorithm: BalancerAlgorithm::ConsistentHash.into(),
        hash_keys: vec![key],
        ..LoadBalancer::default()
    };
    let probe = Probe::Http(HttpCheck { path: "/healthy".to_owned(), ..HttpCheck::default() });
    let policy = TrafficPolicy {
        load_balancer: Some(balancer),
        health_check: Some(HealthCheck { probe: Some(probe), ..HealthCheck::default() }),
        ..TrafficPolicy::default()
    };
    let shown = Resource::TrafficPolicy(policy).to_json();
    assert_eq!(shown["load_balancer"]["algorithm"], "consistent_hash");
    assert_eq!(shown["load_balancer"]["hash_keys"][0]["of"]["header"], "x-user");
    assert_eq!(shown["health_check"]["probe"]["http"]["path"], "/healthy");
}

#[test]
fn a_policy_for_a_port_takes_the_place_of_the_services() {
    let mut mesh = Mesh::bookstore();
    let by = |algorithm: BalancerAlgorithm| {
        let balancer = LoadBalancer { algorithm: algorithm.into(), ..LoadBalancer::default() };
        Resource::TrafficPolicy(TrafficPolicy { load_balancer: Some(balancer), ..TrafficPolicy::default() })
    };
    mesh.put("bookstore/bookstore-v1", by(BalancerAlgorithm::RoundRobin));
    mesh.put("bookstore/bookstore-v2", by(BalancerAlgorithm::RoundRobin));
    mesh.put("bookstore/bookstore-v2:14001", by(BalancerAlgorithm::PeakEwma));
    mesh.put("bookstore/bookstore-v1:9", by(BalancerAlgorithm::PeakEwma));
    let mesh = mesh.split("bookstore/split", "bookstore/bookstore", &[("bookstore/bookstore-v2", 1)], &[]);
    let snapshot = mesh.snapshot();
    for (to, name, word) in [
        ("10.96.0.11:14001", "bookstore/bookstore-v1", "round_robin"),
        ("10.96.0.12:14001", "bookstore/bookstore-v2:14001", "peak_ewma"),
        // Through the split, to the backend's port.
        ("10.96.0.10:14001", "bookstore/bookstore-v2:14001", "peak_ewma"),
    ] {
        with_decision(&snapshot, &outbound(to), "", |decision| {
            let Decision::Forward(forward) = decision else { panic!("{decision}") };
            let policy = forward.pick_backend(0).policy;
            assert_eq!((policy.name.as_str(), policy.balancing.algorithm.as_str()), (name, word));
        });
    }
}

#[test]
fn an_invalid_expression_is_named_as_it_was_written() {
    let mesh = Mesh::new().group("a/b", vec![route("ok", ".*", "", &[]), route("bad", "/x(", "", &[])]);
    assert!(error(mesh).starts_with("RouteGroup/a/b: matches[1].path_regex: \"/x(\" is not a regular expression"));
    let mesh = Mesh::new().group("a/b", vec![route("bad", "(?!x)", "", &[])]);
    assert!(error(mesh).contains("no look-around"));
    let mesh = Mesh::new().group("a/b", vec![route("bad", "", "", &[("x-a", "[")])]);
    assert!(error(mesh).starts_with("RouteGroup/a/b: matches[0].headers[0].value_regex: \"[\""));
    let mesh = Mesh::new().group("a/b", vec![route("bad", "", "", &[("x a", "")])]);
    assert_eq!(error(mesh), "RouteGroup/a/b: matches[0].headers[0].name: \"x a\" is not a header name");
}

#[test]
fn an_expression_cannot_close_its_anchors() {
    // Neither a bracket nor a comment may lead out of the anchored group.
    for written in ["/a)|(?:/b", "(?x)/a # "] {
        let mesh = Mesh::new().group("a/b", vec![route("bad", written, "", &[])]);
        let compiled = Snapshot::compile(mesh.set.clone());
        let Err(error) = compiled else { panic!("{written} is taken") };
        assert!(error.to_string().contains("is not a regular expression"), "{error}");
    }
}

#[test]
fn an_expression_that_would_be_huge_is_refused() {
    let mesh = Mesh::new().group("a/b", vec![route("bad", "(a{1000}){1000}", "", &[])]);
    assert!(error(mesh).starts_with("RouteGroup/a/b: matches[0].path_regex"));
}

#[test]
fn damaged_bytes_name_the_resource() {
    let mut mesh = Mesh::new();
    mesh.set.resources.insert(name(Kind::Split, "a/b"), Entry { version: 1, bytes: vec![0xff; 3].into() });
    assert!(error(mesh).starts_with("Split/a/b: bytes: the bytes of a Split are damaged"));
}

#[test]
fn the_controller_can_check_one_resource_as_a_proxy_would() {
    let mesh = Mesh::new().group("a/b", vec![route("bad", "/x(", "", &[])]);
    let group = name(Kind::RouteGroup, "a/b");
    let resource = Resource::decode(Kind::RouteGroup, &mesh.set.resources[&group].bytes).unwrap();
    assert_eq!(check(&group, &resource).unwrap_err().to_string(), error(mesh));
}

#[test]
fn a_reference_to_nothing_is_no_error() {
    Mesh::new()
        .split("a/split", "a/none", &[("a/nothing", 1)], &["a/nowhere"])
        .target("a/target", &[BUYER], vec![http("a/none", &["x"])])
        .endpoints("a/none", 80, &["10.0.0.1"])
        .snapshot();
}

#[test]
fn a_proxy_that_was_told_nothing_refuses_everything() {
    let snapshot = Snapshot::compile(Default::default()).unwrap();
    assert!(!snapshot.is_complete());
    assert!(Mesh::new().snapshot().is_complete());
    assert!(sentence(&snapshot, &outbound("10.0.0.1:80"), "").starts_with("refused with 403"));
    assert!(sentence(&snapshot, &crate::mesh::inbound(80, BUYER), "GET a/").starts_with("refused with 403"));
}

#[test]
fn the_identity_of_the_workload_follows_from_settings_and_workload() {
    let snapshot = Mesh::new().snapshot();
    assert_eq!(snapshot.identity().unwrap().to_string(), "spiffe://cluster.local/ns/bookstore/sa/bookstore");
}

#[test]
fn a_configuration_is_readable_as_json() {
    let mesh = Mesh::new().target("a/b", &[BUYER], vec![http("a/routes", &["x"]), crate::mesh::tcp("a/tcp")]);
    insta::assert_json_snapshot!(mesh.set.to_json());
}
