//! What becomes of requests between two proxies, and that it is what each of them decides for itself.

use std::sync::Arc;

use fsm_proxy_config::head;
use fsm_proxy_config::journey::{Server, at_server};
use fsm_proxy_config::{Asked, Connection, FirstBytes, Journey, RequestHead, Snapshot, Verdict, decide};
use http::Request;
use http::request::Parts;
use proptest::prelude::*;
use proptest::sample::select;

use crate::mesh::{BUYER, Mesh, STORE_VIP, THIEF, http as rule, route};

const STORE: &str = "spiffe://cluster.local/ns/bookstore/sa/bookstore";

/// What the proxy of this identity is told: the mesh, as the workload of that account.
fn client(identity: &str) -> Snapshot {
    let account = identity.rsplit('/').next().unwrap();
    store().workload(account, account).snapshot()
}

fn store() -> Mesh {
    Mesh::bookstore()
        .group("bookstore/routes", vec![route("buy", "/buy.*", "GET", &[]), route("host", "", "", &[("host", "v2.*")])])
        .split(
            "bookstore/split",
            "bookstore/bookstore",
            &[("bookstore/bookstore-v1", 3), ("bookstore/bookstore-v2", 1)],
            &[],
        )
        .target("bookstore/buyer", &[BUYER], vec![rule("bookstore/routes", &[])])
        .workload("bookstore", "bookstore")
}

fn ask(method: &str, host: &str, path: &str) -> Asked {
    let head = Request::builder().method(method).uri(path).header("host", host).body(()).unwrap().into_parts().0;
    Asked { destination: STORE_VIP.parse().unwrap(), head: Some(head) }
}

fn follow(identity: &str, asked: &Asked) -> Journey {
    let server = Arc::new(store().snapshot());
    Journey::follow(&client(identity), asked, |_| Some(server.clone()))
}

#[test]
fn a_request_that_both_sides_let_through_is_allowed_at_every_endpoint() {
    let journey = follow(BUYER, &ask("GET", "bookstore", "/buy/a-book"));
    assert_eq!(journey.verdict(), Verdict::Allowed);
    let weights: Vec<(&str, u32)> =
        journey.backends.iter().map(|backend| (backend.service.as_str(), backend.weight)).collect();
    assert_eq!(weights, [("bookstore/bookstore-v1", 3), ("bookstore/bookstore-v2", 1)]);
    assert!(journey.endpoints().all(|(_, endpoint)| endpoint.server.to_string().contains("route buy")));
}

#[test]
fn the_server_has_the_last_word() {
    let thief = follow(THIEF, &ask("GET", "bookstore", "/buy/a-book"));
    assert_eq!(thief.verdict(), Verdict::Denied);
    assert!(!thief.client.refused);
    assert_eq!(follow(BUYER, &ask("POST", "bookstore", "/buy/a-book")).verdict(), Verdict::Denied);
}

#[test]
fn the_host_that_the_application_will_see_is_judged() {
    assert_eq!(follow(BUYER, &ask("POST", "v2.example", "/")).verdict(), Verdict::Allowed);
    // A header for the connection only goes no further, so it can't be what a policy allows.
    let mut hidden = ask("POST", "bookstore", "/");
    hidden.head.as_mut().unwrap().headers.insert("connection", "host".parse().unwrap());
    assert_eq!(follow(BUYER, &hidden).verdict(), Verdict::Denied);
}

#[test]
fn endpoints_whose_proxy_is_missing_or_somebody_else_do_not_serve() {
    let asked = ask("GET", "bookstore", "/buy/a-book");
    let missing = Journey::follow(&client(BUYER), &asked, |_| None);
    assert_eq!(missing.verdict(), Verdict::Denied);
    assert!(missing.endpoints().all(|(_, endpoint)| endpoint.server == Server::NotServing));
    let other = Arc::new(store().workload("bookstore", "impostor").snapshot());
    let wrong = Journey::follow(&client(BUYER), &asked, |_| Some(other.clone()));
    assert!(matches!(wrong.backends[0].endpoints[0].server, Server::WrongIdentity { .. }));
    let right = Arc::new(store().snapshot());
    let mixed = Journey::follow(&client(BUYER), &asked, |pod| pod.contains("v1").then(|| right.clone()));
    assert_eq!(mixed.verdict(), Verdict::Mixed);
}

fn asked() -> impl Strategy<Value = Asked> {
    let header = (
        select(&["x-a", "connection", "te", "upgrade", "fsm-port", "cookie", "keep-alive"][..]),
        select(&["1", "close, x-a", "host", "upgrade", "websocket", "trailers", "h2c"][..]),
    );
    let head = (
        select(&["GET", "POST"][..]),
        select(&["bookstore", "v2.shop:80", "no host", "bookstore-v1.bookstore:14001"][..]),
        select(&["/buy", "/", "/a/../buy?x=1", "*"][..]),
        proptest::collection::vec(header, 0..4),
    );
    let head = head.prop_map(|(method, host, path, headers)| {
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(()).unwrap().into_parts().0
    });
    (select(&[STORE_VIP, "10.244.0.11:14001", "10.96.0.11:9", "192.0.2.1:80"][..]), proptest::option::of(head))
        .prop_map(|(destination, head)| Asked { destination: destination.parse().unwrap(), head })
}

/// What the data path does with a request, step by step as `proxy/src/outbound` and `proxy/src/inbound` do it: the words of each
/// decision.
fn as_data_path(client: &Snapshot, server: &Snapshot, asked: &Asked) -> Vec<String> {
    let connection = Connection::Outbound { destination: asked.destination };
    let opaque = FirstBytes::of(client, asked.destination) == FirstBytes::Opaque;
    let head = asked.head.as_ref().filter(|_| !opaque);
    let decision = decide(client, &connection, head.map(RequestHead::of).as_ref());
    let mut words = vec![decision.to_string()];
    if let fsm_proxy_config::Decision::Forward(forward) = decision {
        for (backend, _) in forward.backends() {
            for endpoint in backend.endpoints {
                let head = head.map(|head| on_the_wire(head.clone(), endpoint.address));
                let connection =
                    Connection::Inbound { port: endpoint.address.port(), peer: client.identity().cloned() };
                words.push(decide(server, &connection, head.as_ref().map(RequestHead::of).as_ref()).to_string());
            }
        }
    }
    words
}

/// Out of one proxy and into the other.
fn on_the_wire(mut head: Parts, endpoint: std::net::SocketAddr) -> Parts {
    let upgrade = head::upgrade_of(&head).is_some();
    head::strip_but_upgrade(&mut head.headers, upgrade);
    head::strip_internal(&mut head.headers);
    if !upgrade {
        head::into_http2(&mut head, &endpoint.to_string().parse().unwrap());
        head.headers.insert(head::FSM_PORT, endpoint.port().into());
    }
    head::for_application(&mut head);
    head
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Same configuration, same request: what replay says is what the data path decides, on both sides.
    #[test]
    fn a_journey_is_what_both_proxies_decide(asked in asked(), identity in select(&[BUYER, THIEF, STORE][..])) {
        let (client, server) = (client(identity), Arc::new(store().snapshot()));
        let journey = Journey::follow(&client, &asked, |_| Some(server.clone()));
        let mut words = vec![journey.client.sentence().to_owned()];
        words.extend(journey.endpoints().map(|(_, endpoint)| endpoint.server.to_string()));
        prop_assert_eq!(words, as_data_path(&client, &server, &asked));
        if let Some(head) = &asked.head {
            let endpoint = "10.244.0.11:14001".parse().unwrap();
            let (ours, theirs) = (at_server(head, endpoint), on_the_wire(head.clone(), endpoint));
            prop_assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        }
    }
}
