//! Requests that wait for a connection to be made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::Resource;
use fsm_proxy_config::proto::{CircuitLimits, Protocol, Retry, TrafficPolicy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::app::{self, describe};
use super::client::fetch;
use super::mesh::{Mesh, Pair, Pod, SERVER, pod_ip};
use crate::sidecar::MESH_PORT;

/// An address whose connections reach `server` once there are permits for them.
async fn gated(server: SocketAddr, gate: Arc<Semaphore>) -> SocketAddr {
    let listener = TcpListener::bind((pod_ip(), MESH_PORT)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move {
                gate.acquire().await.unwrap().forget();
                let mut other = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
            });
        }
    });
    address
}

/// A pair with `policy`, whose client reaches the server only through the gate.
async fn pair(protocol: Protocol, policy: TrafficPolicy, gate: &Arc<Semaphore>) -> Pair {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, protocol);
    let mesh = gated(SocketAddr::new(pair.server.ip, MESH_PORT), Arc::clone(gate)).await;
    let endpoint = SocketAddr::new(mesh.ip(), pair.endpoint.port());
    let resources = pair.client_resources.clone().endpoints("shop/store", &[endpoint], SERVER);
    pair.client.configure(&resources.with("shop/store", Resource::TrafficPolicy(policy)));
    pair
}

fn limits(pending_requests: u32) -> Option<CircuitLimits> {
    Some(CircuitLimits { pending_requests, ..CircuitLimits::default() })
}

/// Returns once so many requests wait.
async fn until_waiting(client: &Pod, count: u32) {
    let view = client.handle.data_path();
    let waiting = async {
        while view.circuit("shop/store", 80).is_none_or(|circuit| circuit.pending != count) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("as many requests should wait");
}

#[tokio::test]
async fn requests_beyond_those_that_may_wait_for_a_connection_are_refused_until_it_is_made() {
    let gate = Arc::new(Semaphore::new(0));
    let pair = pair(Protocol::Http, TrafficPolicy { limits: limits(2), ..TrafficPolicy::default() }, &gate).await;
    let outbound = pair.client.outbound();
    let waiting = [tokio::spawn(fetch(outbound, "/1")), tokio::spawn(fetch(outbound, "/2"))];
    until_waiting(&pair.client, 2).await;
    let refused = fetch(outbound, "/3").await;
    assert_eq!((refused.status, refused.headers["fsm-denied"].to_str().unwrap()), (503, "pending_overflow"));
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.text.contains("2 requests to the service wait for a connection"), "{}", refused.text);
    assert_eq!(pair.client.handle.metrics().summary().refused["outbound pending_overflow"], 1);
    let counted = "sidecar_cluster_upstream_rq_pending_overflow{sidecar_cluster_name=\"shop/store\",port=\"80\"} 1";
    assert!(pair.client.metrics().lines().any(|line| line == counted), "{}", pair.client.metrics());
    // Not for the endpoint: it is asked as soon as there is a connection.
    gate.add_permits(1);
    for request in waiting {
        assert_eq!(request.await.unwrap().status, 200);
    }
    until_waiting(&pair.client, 0).await;
    // On the connection that is there nobody waits, however many come at once.
    let at_once: Vec<_> = (0..8).map(|_| tokio::spawn(fetch(outbound, "/4"))).collect();
    for request in at_once {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(pair.client.handle.metrics().summary().connections.mtls, 1);
}

#[tokio::test]
async fn a_request_too_many_to_wait_is_not_sent_again_by_policy() {
    let gate = Arc::new(Semaphore::new(0));
    let retry = Retry { server_errors: true, resets: true, attempts: 3, ..Retry::default() };
    let policy = TrafficPolicy { limits: limits(1), retry: Some(retry), ..TrafficPolicy::default() };
    let pair = pair(Protocol::Http, policy, &gate).await;
    let waiting = tokio::spawn(fetch(pair.client.outbound(), "/1"));
    until_waiting(&pair.client, 1).await;
    assert_eq!(fetch(pair.client.outbound(), "/2").await.headers["fsm-denied"], "pending_overflow");
    assert_eq!(pair.client.handle.metrics().summary().refused["outbound pending_overflow"], 1);
    assert!(
        !pair
            .client
            .metrics()
            .contains("upstream_rq_retry_limit_exceeded{sidecar_cluster_name=\"shop/store\",port=\"80\"} 1")
    );
    // One that is given up waits no more.
    waiting.abort();
    until_waiting(&pair.client, 0).await;
}
