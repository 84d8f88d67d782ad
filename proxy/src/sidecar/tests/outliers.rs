//! Servers that are left out, and limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fsm_proxy_config::Resource;
use fsm_proxy_config::proto::{
    BalancerAlgorithm, CircuitLimits, LoadBalancer, OutlierDetection, Protocol, TrafficPolicy,
};
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use super::app;
use super::client::fetch;
use super::fleet::Fleet;
use super::mesh::Mesh;

fn ejecting(outliers: OutlierDetection) -> TrafficPolicy {
    let balancer = LoadBalancer { algorithm: BalancerAlgorithm::RoundRobin.into(), ..Default::default() };
    TrafficPolicy { load_balancer: Some(balancer), outliers: Some(outliers), ..Default::default() }
}

/// Servers of which the first fails as long as `failing` says, and all do with `everywhere`.
async fn fleet(policy: TrafficPolicy, failing: &Arc<AtomicBool>, everywhere: bool) -> Fleet {
    let failing = Arc::clone(failing);
    Fleet::new(2, policy, move |number, _| {
        let fails = failing.load(Ordering::SeqCst) && (number == 0 || everywhere);
        async move { Response::builder().status(if fails { 500 } else { 200 }).body(app::text("")).unwrap() }
    })
    .await
}

#[tokio::test]
async fn a_server_that_fails_again_and_again_is_left_out() {
    let failing = Arc::new(AtomicBool::new(true));
    let outliers = OutlierDetection { consecutive_errors: 3, base_ejection_ms: 3_600_000, ..Default::default() };
    let fleet = fleet(ejecting(outliers), &failing, false).await;
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(fetch(fleet.client.outbound(), "/").await.status);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 3, "{statuses:?}");
    assert_eq!(fleet.counts(), [3, 27]);
    let state = fleet.client.handle.data_path().endpoint("shop/store", 80, fleet.endpoints[0]).unwrap();
    assert!(state.ejected_for_ms.is_some() && state.ejections == 1, "{state:?}");
    let counted =
        "sidecar_cluster_outlier_detection_ejections_total{sidecar_cluster_name=\"shop/store\",port=\"80\"} 1";
    assert!(fleet.client.metrics().lines().any(|line| line == counted), "{}", fleet.client.metrics());
}

#[tokio::test]
async fn a_server_that_was_left_out_comes_back() {
    let failing = Arc::new(AtomicBool::new(true));
    let outliers = OutlierDetection { consecutive_errors: 1, base_ejection_ms: 20, ..Default::default() };
    let fleet = fleet(ejecting(outliers), &failing, false).await;
    while fetch(fleet.client.outbound(), "/").await.status == 200 {}
    failing.store(false, Ordering::SeqCst);
    let back = async {
        while fleet.counts()[0] < 3 {
            assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 200);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
}

#[tokio::test]
async fn no_more_servers_are_left_out_than_the_policy_allows() {
    let failing = Arc::new(AtomicBool::new(true));
    let outliers = OutlierDetection { consecutive_errors: 1, base_ejection_ms: 3_600_000, ..Default::default() };
    let fleet = fleet(ejecting(outliers), &failing, true).await;
    for _ in 0..6 {
        assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 500);
    }
    let view = fleet.client.handle.data_path();
    let states = fleet.endpoints.iter().map(|endpoint| view.endpoint("shop/store", 80, *endpoint).unwrap());
    assert_eq!(states.filter(|state| state.ejected_for_ms.is_some()).count(), 1);
    assert!(fleet.client.metrics().contains("outlier_detection_ejections_overflow{"));
}

fn limited(limits: CircuitLimits) -> TrafficPolicy {
    TrafficPolicy { limits: Some(limits), ..Default::default() }
}

#[tokio::test]
async fn requests_beyond_the_limit_of_their_service_are_refused_until_there_is_room() {
    let released = Arc::new(Semaphore::new(0));
    let (seen, mut arrived) = mpsc::channel(8);
    let gate = Arc::clone(&released);
    let fleet = Fleet::new(1, limited(CircuitLimits { requests: 2, ..Default::default() }), move |_, _| {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        async move {
            seen.send(()).await.unwrap();
            gate.acquire().await.unwrap().forget();
            Response::new(app::text("book"))
        }
    })
    .await;
    let outbound = fleet.client.outbound();
    let held = [tokio::spawn(fetch(outbound, "/1")), tokio::spawn(fetch(outbound, "/2"))];
    arrived.recv().await.unwrap();
    arrived.recv().await.unwrap();
    let refused = fetch(outbound, "/3").await;
    assert_eq!((refused.status, refused.headers["fsm-denied"].to_str().unwrap()), (503, "overflow"));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(fleet.client.handle.metrics().summary().refused["outbound overflow"], 1);
    released.add_permits(3);
    for request in held {
        assert_eq!(request.await.unwrap().status, 200);
    }
    assert_eq!(fetch(outbound, "/4").await.status, 200);
    assert_eq!(fleet.counts(), [3]);
}

#[tokio::test]
async fn opaque_connections_beyond_the_limit_of_their_service_are_refused_until_there_is_room() {
    let app = app::listen(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Tcp);
    let policy = Resource::TrafficPolicy(limited(CircuitLimits { connections: 1, ..Default::default() }));
    pair.client.configure(&pair.client_resources.clone().with("shop/store", policy));
    let echoed = async || {
        let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
        let mut answer = [0; 2];
        let sent = stream.write_all(b"hi").await;
        let read = stream.read_exact(&mut answer).await;
        (sent.and(read.map(drop)).is_ok(), stream)
    };
    let (first, held) = echoed().await;
    assert!(first);
    assert!(!echoed().await.0);
    assert_eq!(pair.client.handle.metrics().summary().refused["outbound overflow"], 1);
    drop(held);
    let room = async { while !echoed().await.0 {} };
    tokio::time::timeout(Duration::from_secs(20), room).await.unwrap();
}
