//! The entries of the access log at a server that takes them.

use std::net::SocketAddr;
use std::time::Duration;

use fsm_proxy_config::proto::{self, Protocol};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::app::{self, App, describe};
use super::client::fetch;
use super::mesh::{CLIENT, Mesh, Resources};
use super::observed::pair;

/// A server that answers with `status`, and what it was sent.
async fn sink(status: StatusCode) -> (App, UnboundedReceiver<(String, Value)>) {
    let (sent, received) = unbounded_channel();
    let app = app::http1(move |request: Request<Incoming>| {
        let sent = sent.clone();
        async move {
            assert_eq!(request.headers()["content-type"], "application/json");
            let target = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            sent.send((target, serde_json::from_slice(&body).unwrap())).unwrap();
            Response::builder().status(status).body(app::text("")).unwrap()
        }
    });
    (app.await, received)
}

fn all_to(address: SocketAddr) -> Option<proto::RemoteLog> {
    Some(proto::RemoteLog { url: format!("http://{address}/in?table=a%20b"), sampled_per_million: 1_000_000 })
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_posted_with_where_they_come_from() {
    let (sink, mut received) = sink(StatusCode::NO_CONTENT).await;
    let app = app::http1(describe).await;
    let change = |resources: Resources| resources.settings(|settings| settings.remote_log = all_to(sink.address));
    let (pair, client, server) = pair(&Mesh::new(), app.address, Protocol::Http, change);
    assert_eq!(fetch(pair.client.outbound(), "/books?id=1").await.status, 200);
    for (pod, other, direction) in [(&pair.client, "buyer", "outbound"), (&pair.server, "store", "inbound")] {
        // What waits is sent before the end.
        pod.handle.drain().await;
        let (target, entries) = received.recv().await.unwrap();
        assert_eq!(target, "POST /in?table=a%20b");
        let [entry] = &entries.as_array().unwrap()[..] else { panic!("{entries}") };
        let told = (&entry["direction"], &entry["path"], &entry["response_code"]);
        assert_eq!(told, (&direction.into(), &"/books?id=1".into(), &200.into()), "{entry}");
        assert_eq!(entry["workload"], other, "{entry}");
        let page = pod.metrics();
        assert!(page.contains("\nfsm_proxy_remote_log_entries_total{result=\"sent\"} 1\n"), "{page}");
        if direction == "inbound" {
            assert_eq!(entry["source"], CLIENT);
        }
    }
    // There is no other log.
    assert!(client.is_empty() && server.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_nothing_costs_entries_and_no_request() {
    let (refusing, mut received) = sink(StatusCode::FORBIDDEN).await;
    let app = app::http1(describe).await;
    let silent = app::listen(async |stream| drop(stream)).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    for address in [silent.address, refusing.address] {
        let resources = pair.client_resources.clone();
        pair.client.configure(&resources.settings(|settings| settings.remote_log = all_to(address)));
        assert_eq!(fetch(pair.client.outbound(), "/").await.status, 200);
    }
    let sampled = proto::RemoteLog { sampled_per_million: 0, ..all_to(refusing.address).unwrap() };
    let resources = pair.client_resources.clone();
    pair.client.configure(&resources.settings(|settings| settings.remote_log = Some(sampled)));
    assert_eq!(fetch(pair.client.outbound(), "/").await.status, 200);
    pair.client.handle.drain().await;
    assert_eq!(received.recv().await.unwrap().1.as_array().unwrap().len(), 1);
    let told = || pair.client.handle.metrics().summary().told;
    let lost = async {
        while told().remote_entries_lost < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), lost).await.expect("both are lost");
    assert_eq!((told().remote_entries, told().remote_entries_lost), (0, 2));
}
