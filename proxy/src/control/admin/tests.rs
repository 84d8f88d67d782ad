//! The admin port, over a socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::proto::{
    Endpoint, Endpoints, PortMapping, Service, ServicePort, Settings, TrustBundle, Workload,
};
use fsm_proxy_config::{ConfigSet, Entry, Resource, ResourceName, Snapshot};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::upstream::{CircuitState, MemberState};

use super::{Admin, DataPath, serve};
use crate::Snapshots;
use crate::control::State;
use crate::telemetry::LogLevel;
use crate::tls::MeshTls;
use crate::tls::testing::TestCa;

const BUYER: &str = "spiffe://cluster.local/ns/bookbuyer/sa/bookbuyer";

struct Loads;

impl DataPath for Loads {
    fn stats(&self) -> Value {
        json!({ "requests": 3 })
    }

    fn listeners(&self) -> Value {
        json!({ "outbound": ["127.0.0.1:15001"] })
    }

    fn endpoint(&self, service: &str, port: u16, address: SocketAddr) -> Option<MemberState> {
        assert_eq!((service, port), ("bookstore/bookstore", 14001));
        let state = MemberState {
            in_flight: 2,
            latency_ms: Some(1.5),
            weight: 1,
            unreachable: false,
            ejected_for_ms: None,
            ejections: 0,
            healthy: None,
            health_check_failure: None,
        };
        (address.port() == 14001).then_some(state)
    }

    fn circuit(&self, _service: &str, _port: u16) -> Option<CircuitState> {
        Some(CircuitState { requests: 2, retries: 0, connections: 0, pending: 1, open_for_ms: None })
    }
}

fn snapshot(trust_pem: String) -> Snapshot {
    let mut set = ConfigSet { seq: 12, ..ConfigSet::default() };
    let settings = Settings { trust_domain: "cluster.local".to_owned(), permissive: true, ..Settings::default() };
    let service = Service {
        vips: vec!["10.96.0.10".to_owned()],
        ports: vec![ServicePort { port: 14001, name: String::new(), protocol: 1 }],
        ..Service::default()
    };
    let endpoints = Endpoints {
        service: "bookstore/bookstore".to_owned(),
        ports: vec![PortMapping { service_port: 14001, target_port: 14001 }],
        endpoints: vec![Endpoint {
            address: "10.244.0.11".to_owned(),
            identity: BUYER.to_owned(),
            ..Endpoint::default()
        }],
    };
    for (name, resource) in [
        ("settings", Resource::Settings(settings)),
        ("workload", Resource::Workload(Workload::default())),
        ("trust", Resource::TrustBundle(TrustBundle { pem: trust_pem })),
        ("bookstore/bookstore", Resource::Service(service)),
        ("bookstore/bookstore-1", Resource::Endpoints(endpoints)),
    ] {
        let entry = Entry { version: 12, bytes: resource.encode().into() };
        set.resources.insert(ResourceName::new(resource.kind(), name), entry);
    }
    Snapshot::compile(set).unwrap()
}

/// An admin port, and what it reads.
struct Port {
    address: SocketAddr,
    tls: MeshTls,
    snapshots: Snapshots,
    state: watch::Sender<State>,
}

async fn port() -> Port {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (state, watched) = watch::channel(State::default());
    let (tls, snapshots) = (MeshTls::default(), Snapshots::default());
    let admin = Admin {
        tls: tls.clone(),
        snapshots: snapshots.clone(),
        state: watched,
        data_path: Arc::new(Loads),
        log: Some(LogLevel::detached("info")),
    };
    tokio::spawn(serve(listener, admin));
    Port { address, tls, snapshots, state }
}

async fn ready_port() -> Port {
    let port = port().await;
    let ca = TestCa::new();
    port.tls.set(ca.issue(BUYER, Duration::from_secs(3600))).unwrap();
    port.snapshots.store(Some(Arc::new(snapshot(ca.trust_pem()))));
    port
}

impl Port {
    async fn ask(&self, method: &str, target: &str) -> (u16, Value) {
        let (status, body) = self.text(method, target).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn text(&self, method: &str, target: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn get(&self, target: &str) -> (u16, Value) {
        self.ask("GET", target).await
    }
}

#[tokio::test]
async fn a_proxy_is_ready_with_a_certificate_and_a_configuration_and_says_what_is_missing() {
    let port = port().await;
    port.state.send_modify(|state| state.certificate_error = Some("the token is stale".to_owned()));
    let (status, body) = port.get("/ready").await;
    assert_eq!(status, 503);
    assert!(body["missing"][0].as_str().unwrap().contains("the token is stale"), "{body}");
    assert_eq!(body["missing"][1], "no configuration yet");
    assert_eq!(port.get("/config_dump").await.0, 503);

    let (status, body) = ready_port().await.get("/ready").await;
    assert_eq!((status, &body["ready"], &body["seq"]), (200, &json!(true), &json!(12)));
}

#[tokio::test]
async fn the_configuration_is_shown_as_it_was_told() {
    let (status, body) = ready_port().await.get("/config_dump").await;
    assert_eq!((status, &body["seq"]), (200, &json!(12)));
    let service = &body["resources"]["Service/bookstore/bookstore"]["config"];
    assert_eq!(service["ports"][0], json!({ "port": 14001, "name": "", "protocol": "http" }));
}

#[tokio::test]
async fn clusters_show_what_is_under_way_to_each_endpoint() {
    let (_, body) = ready_port().await.get("/clusters").await;
    let endpoint = &body[0]["endpoints"][0];
    assert_eq!(body[0]["service"], "bookstore/bookstore");
    assert_eq!((&endpoint["address"], &endpoint["under_way"]), (&json!("10.244.0.11:14001"), &json!(2)));
    assert_eq!(
        body[0]["circuit"],
        json!({ "requests": 2, "retries": 0, "connections": 0, "pending": 1, "open_for_ms": null })
    );
}

#[tokio::test]
async fn stats_join_both_sides() {
    let port = ready_port().await;
    port.state.send_modify(|state| state.acked_seq = Some(12));
    let (_, body) = port.get("/stats").await;
    assert_eq!((&body["data"]["requests"], &body["control"]["acked_seq"]), (&json!(3), &json!(12)));
    assert_eq!(port.get("/listeners").await.1["outbound"][0], "127.0.0.1:15001");
}

#[tokio::test]
async fn certificates_are_shown_without_a_key() {
    let (status, body) = ready_port().await.get("/certs").await;
    assert_eq!((status, &body["identity"], &body["expired"]), (200, &json!(BUYER), &json!(false)));
    assert_eq!(body["chain_certificates"], 2);
    assert!(!body.to_string().contains("PRIVATE"));
}

#[tokio::test]
async fn a_decision_is_explained() {
    let port = ready_port().await;
    let (status, body) = port.get("/decide?to=10.96.0.10:14001&method=GET&path=/books%3Fid=1&host=bookstore").await;
    assert_eq!((status, &body["decision"]), (200, &json!("forward")));
    assert_eq!(body["backends"][0]["endpoints"][0], "10.244.0.11:14001");
    assert!(body["steps"][0].as_str().unwrap().contains("is the cluster address of service bookstore/bookstore"));

    let (_, body) = port.get(&format!("/decide?direction=inbound&to=14001&peer={BUYER}")).await;
    assert_eq!(body["decision"], "allow");
    let (_, body) = port.get("/decide?direction=inbound&to=14001").await;
    assert_eq!((&body["decision"], &body["status"], &body["kind"]), (&json!("refuse"), &json!(403), &json!("no_peer")));
    let (status, body) = port.get("/decide?to=nowhere").await;
    assert_eq!((status, &body["error"]), (400, &json!("to=\"nowhere\" is not an address and port")));
}

#[tokio::test]
async fn what_is_not_there_is_answered_with_what_is() {
    let port = ready_port().await;
    let (status, body) = port.get("/quitquitquit").await;
    assert_eq!((status, body["pages"].as_array().unwrap().len()), (404, 9));
    assert_eq!(port.ask("POST", "/ready").await.0, 405);
}

#[tokio::test]
async fn the_first_page_lists_the_others() {
    let port = ready_port().await;
    let (status, text) = port.text("GET", "/").await;
    assert_eq!(status, 200);
    for (path, _) in super::pages::PAGES {
        assert!(text.contains(path), "{path} is missing: {text}");
        assert_ne!(port.text("GET", path.split('?').next().unwrap()).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_decision_is_told_to_people_too() {
    let port = ready_port().await;
    let (status, text) = port.text("GET", "/decide?to=10.96.0.10:14001&path=/books&host=bookstore&format=text").await;
    assert_eq!(status, 200);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "GET /books of host bookstore, from this pod to 10.96.0.10:14001, by the configuration of seq 12:"
    );
    assert!(
        lines[1].starts_with("  1. 10.96.0.10:14001 is the cluster address of service bookstore/bookstore"),
        "{text}"
    );
    assert_eq!(port.get("/decide?to=1.2.3.4:80&format=xml").await.0, 400);
}

#[tokio::test]
async fn the_log_level_is_changed_while_the_proxy_runs() {
    let port = ready_port().await;
    assert_eq!(port.get("/logging").await.1["level"], "info");
    assert_eq!(port.ask("POST", "/logging?level=info,fsm_proxy%3Ddebug").await.0, 200);
    assert_eq!(port.get("/logging").await.1["level"], "info,fsm_proxy=debug");
    let (status, body) = port.ask("POST", "/logging?level=loud=very=much").await;
    assert_eq!(status, 400);
    assert!(body["error"].as_str().unwrap().contains("write info, or info,fsm_proxy=debug"), "{body}");
    assert_eq!(port.ask("POST", "/logging").await.0, 400);
    assert_eq!(port.get("/logging").await.1["level"], "info,fsm_proxy=debug");
}
