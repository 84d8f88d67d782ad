//! What becomes of requests between two proxies. That two sidecars do the same is tested beside them: `proxy/src/sidecar/tests/journey.rs`.

use std::sync::Arc;

use fsm_proxy_config::journey::Server;
use fsm_proxy_config::{Asked, Journey, Snapshot, Verdict};
use http::Request;

use crate::mesh::{BUYER, Mesh, STORE_VIP, THIEF, http as rule, route};

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
