//! What holds for every configuration.

use fsm_proxy_config::proto::inbound_rule::Route;
use fsm_proxy_config::proto::{
    Backend, Endpoint, Endpoints, HeaderMatch, HttpMatch, InboundPolicy, InboundRule, LoadBalancer, PortMapping,
    RouteGroup, RouteGroupRef, Service, ServicePort, Settings, Split, TcpRoute, TrafficPolicy,
};
use fsm_proxy_config::{
    ConfigSet, Connection, Decision, Entry, Kind, RequestHead, Resource, ResourceName, Snapshot, SpiffeId, Update,
    decide, explain,
};
use http::HeaderMap;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

// Few values, so that references often meet.
const NAMES: [&str; 4] = ["a/a", "a/b", "b/a", "none"];
const ADDRESSES: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "broken"];
const PORTS: [u32; 4] = [80, 81, 443, 0];
const IDENTITIES: [&str; 4] =
    ["spiffe://td/ns/a/sa/a", "spiffe://td/ns/b/sa/b", "spiffe://other/ns/a/sa/a", "spiffe://broken"];
const PATHS: [&str; 6] = ["", "/", "/a", "/a/.*", "/(", "/a|/b"];
const METHODS: [&str; 3] = ["GET", "POST", "*"];

fn name() -> impl Strategy<Value = String> {
    select(&NAMES[..]).prop_map(str::to_owned)
}

/// The last value of each list is invalid, and rare.
fn mostly_valid<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = T> {
    let (last, rest) = values.split_last().unwrap();
    prop_oneof![40 => select(rest), 1 => Just(last.clone())]
}

fn text(values: &'static [&'static str]) -> impl Strategy<Value = String> {
    mostly_valid(values).prop_map(str::to_owned)
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let header = (select(&["x-a", "x-b"][..]), select(&["1", ".*", "[12]"][..]))
        .prop_map(|(name, value)| HeaderMatch { name: name.to_owned(), value_regex: value.to_owned() });
    let methods = vec(select(&METHODS[..]).prop_map(str::to_owned), 0..3);
    (select(&["m", "n"][..]), text(&PATHS), methods, vec(header, 0..2)).prop_map(
        |(name, path_regex, methods, headers)| HttpMatch { name: name.to_owned(), path_regex, methods, headers },
    )
}

fn rule() -> impl Strategy<Value = InboundRule> {
    let matches = vec(select(&["m", "n"][..]).prop_map(str::to_owned), 0..2);
    prop_oneof![
        (name(), matches).prop_map(|(group, matches)| Some(Route::Http(RouteGroupRef { group, matches }))),
        name().prop_map(|name| Some(Route::Tcp(name))),
        Just(None),
    ]
    .prop_map(|route| InboundRule { route })
}

fn resource() -> impl Strategy<Value = Resource> {
    let port = || mostly_valid(&PORTS);
    let service_port =
        (port(), 0..7i32).prop_map(|(port, protocol)| ServicePort { port, name: String::new(), protocol });
    let endpoint = (text(&ADDRESSES), text(&IDENTITIES), any::<bool>()).prop_map(|(address, identity, meshed)| {
        Endpoint { address, identity: if meshed { identity } else { String::new() }, ..Endpoint::default() }
    });
    let mapping = (port(), port()).prop_map(|(service_port, target_port)| PortMapping { service_port, target_port });
    let backend = (name(), select(&[0, 1, 7, u32::MAX][..])).prop_map(|(service, weight)| Backend { service, weight });
    prop_oneof![
        (any::<bool>(), any::<bool>()).prop_map(|(permissive, egress)| Resource::Settings(Settings {
            trust_domain: "td".to_owned(),
            permissive,
            egress,
            ..Settings::default()
        })),
        (vec(text(&ADDRESSES), 0..2), vec(service_port, 0..3), vec(select(&["a", "b.a"][..]), 0..2)).prop_map(
            |(vips, ports, hosts)| Resource::Service(Service {
                vips,
                ports,
                hosts: hosts.into_iter().map(str::to_owned).collect()
            })
        ),
        (name(), vec(mapping, 0..3), vec(endpoint, 0..4))
            .prop_map(|(service, ports, endpoints)| Resource::Endpoints(Endpoints { service, ports, endpoints })),
        (name(), vec(backend, 0..4), vec(name(), 0..2))
            .prop_map(|(service, backends, route_groups)| Resource::Split(Split { service, backends, route_groups })),
        vec(http_match(), 0..3).prop_map(|matches| Resource::RouteGroup(RouteGroup { matches })),
        vec(port(), 0..3).prop_map(|ports| Resource::TcpRoute(TcpRoute { ports })),
        (vec(text(&IDENTITIES), 0..3), vec(rule(), 0..3))
            .prop_map(|(sources, rules)| Resource::InboundPolicy(InboundPolicy { sources, rules })),
        (0..5i32, proptest::option::of(0u32..120)).prop_map(|(algorithm, panic_threshold_percent)| {
            let balancer = LoadBalancer { algorithm, panic_threshold_percent, ..LoadBalancer::default() };
            Resource::TrafficPolicy(TrafficPolicy { load_balancer: Some(balancer), ..TrafficPolicy::default() })
        }),
    ]
}

fn config() -> impl Strategy<Value = ConfigSet> {
    vec((name(), resource()), 0..16).prop_map(|resources| {
        let mut set = ConfigSet { seq: 1, ..ConfigSet::default() };
        for (name, resource) in resources {
            let name = if resource.kind() == Kind::Settings { "settings".to_owned() } else { name };
            let entry = Entry { version: 1, bytes: resource.encode().into() };
            set.resources.insert(ResourceName::new(resource.kind(), name), entry);
        }
        set
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    let address = (select(&ADDRESSES[..4]), select(&[80u16, 81, 443, 9][..]));
    let peer = proptest::option::of(select(&IDENTITIES[..3]));
    prop_oneof![
        address.prop_map(|(ip, port)| Connection::Outbound {
            destination: (ip.parse::<std::net::IpAddr>().unwrap(), port).into()
        }),
        (select(&[80u16, 81, 443, 9][..]), peer)
            .prop_map(|(port, peer)| Connection::Inbound { port, peer: peer.map(|text| text.parse().unwrap()) }),
    ]
}

#[derive(Clone, Debug)]
struct OwnedHead {
    method: String,
    authority: String,
    path: String,
    headers: HeaderMap,
}

impl OwnedHead {
    fn as_head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
            flaw: None,
        }
    }
}

fn head() -> impl Strategy<Value = Option<OwnedHead>> {
    let headers = vec((select(&["x-a", "x-b"][..]), select(&["1", "2", "x"][..])), 0..3);
    let path = prop_oneof![select(&["/", "/a", "/a/b", "/b?c=/a", "/a/../b", ""][..]).prop_map(str::to_owned), ".*"];
    let authority = prop_oneof![select(&["a", "a:80", "B.A.", "10.0.0.1:80"][..]).prop_map(str::to_owned), ".*"];
    let head = (select(&["GET", "POST", "PUT"][..]), authority, path, headers).prop_map(
        |(method, authority, path, headers)| {
            let headers = headers
                .into_iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
            OwnedHead { method: method.to_owned(), authority, path, headers: headers.collect() }
        },
    );
    proptest::option::of(head)
}

/// Whether a match holds, written as the SMI specification reads.
fn naive_match(one: &HttpMatch, head: &RequestHead<'_>) -> bool {
    let method = one.methods.is_empty() || one.methods.iter().any(|method| method == "*" || method == head.method);
    let whole = |expression: &str, text: &str| {
        regex::Regex::new(expression).unwrap().find_iter(text).any(|found| found.as_str() == text)
            || regex::Regex::new(&format!("^({expression})$")).unwrap().is_match(text)
    };
    let raw = head.path.split('?').next().unwrap();
    let readings = match raw {
        "/a/../b" => vec![raw, "/b"],
        _ => vec![raw],
    };
    let path = one.path_regex.is_empty() || readings.iter().all(|path| whole(&one.path_regex, path));
    let headers = one.headers.iter().all(|header| {
        let mut values = head.headers.get_all(header.name.as_str()).iter();
        values.any(|value| whole(&header.value_regex, value.to_str().unwrap()))
    });
    method && path && headers
}

/// Whether a caller is allowed, straight from the messages.
fn naive_allowed(set: &ConfigSet, port: u16, peer: Option<&SpiffeId>, head: Option<&RequestHead<'_>>) -> bool {
    let get = |kind, name: &str| {
        let entry = set.resources.get(&ResourceName::new(kind, name))?;
        Some(Resource::decode(kind, &entry.bytes).unwrap())
    };
    let Some(Resource::Settings(settings)) = get(Kind::Settings, "settings") else { return false };
    let Some(peer) = peer.filter(|peer| peer.trust_domain() == settings.trust_domain) else { return false };
    if settings.permissive {
        return true;
    }
    let policies = set.resources.iter().filter(|(name, _)| name.kind == Kind::InboundPolicy);
    policies.map(|(_, entry)| Resource::decode(Kind::InboundPolicy, &entry.bytes).unwrap()).any(|policy| {
        let Resource::InboundPolicy(policy) = policy else { return false };
        if !policy.sources.iter().any(|source| *source == peer.to_string()) {
            return false;
        }
        let (http, tcp): (Vec<_>, Vec<_>) =
            policy.rules.iter().partition(|rule| matches!(rule.route, Some(Route::Http(_))));
        let http_matches = http.iter().any(|rule| match (&rule.route, head) {
            (Some(Route::Http(reference)), Some(head)) => match get(Kind::RouteGroup, &reference.group) {
                Some(Resource::RouteGroup(group)) => group.matches.iter().any(|one| {
                    (reference.matches.is_empty() || reference.matches.contains(&one.name)) && naive_match(one, head)
                }),
                _ => false,
            },
            _ => false,
        });
        let tcp_matches = tcp.iter().any(|rule| match &rule.route {
            Some(Route::Tcp(name)) => match get(Kind::TcpRoute, name) {
                Some(Resource::TcpRoute(route)) => route.ports.is_empty() || route.ports.contains(&port.into()),
                _ => false,
            },
            _ => false,
        });
        !policy.rules.is_empty() && (http.is_empty() || http_matches) && (tcp.is_empty() || tcp_matches)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every configuration compiles or is refused with a reason; every decision is made, and explained without changing it.
    #[test]
    fn nothing_panics_and_explaining_changes_nothing(
        set in config(),
        questions in vec((connection(), head(), any::<u32>()), 1..8),
    ) {
        let Ok(snapshot) = Snapshot::compile(set) else { return Ok(()) };
        for (connection, head, draw) in &questions {
            let head = head.as_ref().map(OwnedHead::as_head);
            let decision = decide(&snapshot, connection, head.as_ref());
            let (explained, steps) = explain(&snapshot, connection, head.as_ref());
            prop_assert_eq!(decision.to_string(), explained.to_string());
            prop_assert_eq!(steps.last().cloned(), Some(decision.to_string()));
            if let Decision::Forward(forward) = decision {
                prop_assert!(!forward.pick_backend(*draw).endpoints.is_empty());
                prop_assert!(forward.backends().all(|(backend, weight)| weight > 0 && !backend.endpoints.is_empty()));
            }
        }
    }

    /// A snapshot that follows another one is the same as one from nothing.
    #[test]
    fn what_came_before_does_not_matter(
        before in config(),
        after in config(),
        questions in vec((connection(), head()), 1..8),
    ) {
        let Ok(before) = Snapshot::compile(before) else { return Ok(()) };
        let (fresh, next) = (Snapshot::compile(after.clone()), before.compile_next(after));
        let (fresh, next) = match (fresh, next) {
            (Ok(fresh), Ok(next)) => (fresh, next),
            (fresh, next) => {
                prop_assert_eq!(fresh.map(drop).unwrap_err().to_string(), next.map(drop).unwrap_err().to_string());
                return Ok(());
            }
        };
        for (connection, head) in &questions {
            let head = head.as_ref().map(OwnedHead::as_head);
            prop_assert_eq!(explain(&fresh, connection, head.as_ref()).1, explain(&next, connection, head.as_ref()).1);
        }
    }

    /// `decide` allows exactly what a plain reading of the messages allows.
    #[test]
    fn inbound_agrees_with_a_plain_reading(
        set in config(),
        port in select(&[80u16, 81, 443][..]),
        peer in proptest::option::of(select(&IDENTITIES[..3])),
        head in head(),
    ) {
        let Ok(snapshot) = Snapshot::compile(set.clone()) else { return Ok(()) };
        // Arbitrary paths with dot segments need the resolution that is tested elsewhere.
        let simple = |path: &str| path == "/a/../b" || !(path.contains("/.") || path.contains("/%2"));
        prop_assume!(head.as_ref().is_none_or(|head| simple(&head.path)));
        let peer: Option<SpiffeId> = peer.map(|text| text.parse().unwrap());
        let head = head.as_ref().map(OwnedHead::as_head);
        let expected = naive_allowed(&set, port, peer.as_ref(), head.as_ref());
        let decision = decide(&snapshot, &Connection::Inbound { port, peer }, head.as_ref());
        prop_assert_eq!(matches!(decision, Decision::Allow(_)), expected, "{}", decision);
    }

    /// However the way from nothing to a configuration is cut into updates, the result is the same.
    #[test]
    fn updates_add_up_in_any_grouping(
        changes in vec((name(), proptest::option::of(resource())), 0..24),
        cuts in vec(any::<bool>(), 24),
    ) {
        let mut one_by_one = ConfigSet::default();
        let mut grouped = ConfigSet::default();
        let mut pending = Update::default();
        for (index, (name, resource)) in changes.iter().enumerate() {
            let seq = index as u64 + 1;
            let mut update = Update { seq, ..Update::default() };
            match resource {
                Some(resource) => {
                    let entry = Entry { version: seq, bytes: resource.encode().into() };
                    update.changed.insert(ResourceName::new(resource.kind(), name.clone()), entry);
                }
                None => update.removed.push(ResourceName::new(Kind::Split, name.clone())),
            }
            one_by_one.apply(&update);
            merge(&mut pending, update);
            if cuts[index] {
                grouped.apply(&std::mem::take(&mut pending));
            }
        }
        if pending != Update::default() {
            grouped.apply(&pending);
        }
        prop_assert_eq!(one_by_one.digest(), grouped.digest());
        prop_assert_eq!(one_by_one, grouped);
    }

    /// The shares of a split are its weights, however large.
    #[test]
    fn draws_follow_the_weights(weights in vec(1u32.., 1..5), draw in any::<u32>()) {
        let services: Vec<String> = (0..weights.len()).map(|index| format!("a/v{index}")).collect();
        let mut mesh = crate::mesh::Mesh::new().service("a/apex", "10.0.0.1", 80);
        for (index, service) in services.iter().enumerate() {
            mesh = mesh.service(service, "", 80).endpoints(service, 80, &[&format!("10.1.0.{index}")]);
        }
        let backends: Vec<(&str, u32)> = services.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let snapshot = mesh.split("a/split", "a/apex", &backends, &[]).snapshot();
        let picked = crate::mesh::with_decision(&snapshot, &crate::mesh::outbound("10.0.0.1:80"), "", |decision| {
            let Decision::Forward(forward) = decision else { panic!("{decision}") };
            forward.pick_backend(draw).service.to_owned()
        });
        let total: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
        let point = u128::from(draw) * total / (1 << 32);
        let mut sum = 0;
        let expected = weights.iter().position(|weight| { sum += u128::from(*weight); point < sum }).unwrap();
        prop_assert_eq!(picked, services[expected].clone());
    }

    /// Every set survives the disk, and nothing else is read as one.
    #[test]
    fn the_disk_format_keeps_every_set(
        resources in btree_map(name(), (any::<u64>(), resource()), 0..8),
        noise in vec(any::<u8>(), 0..200),
    ) {
        let mut set = ConfigSet { seq: 7, ..ConfigSet::default() };
        for (name, (version, resource)) in resources {
            let entry = Entry { version, bytes: resource.encode().into() };
            set.resources.insert(ResourceName::new(resource.kind(), name), entry);
        }
        prop_assert_eq!(fsm_proxy_config::cache::decode(&fsm_proxy_config::cache::encode(&set)).unwrap(), set);
        prop_assert!(fsm_proxy_config::cache::decode(&noise).is_err());
    }
}

/// Both updates in one.
fn merge(first: &mut Update, then: Update) {
    first.seq = then.seq;
    for name in then.removed {
        first.changed.remove(&name);
        first.removed.push(name);
    }
    for (name, entry) in then.changed {
        first.removed.retain(|removed| *removed != name);
        first.changed.insert(name, entry);
    }
}
