//! Active health checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use fsm_proxy_config::proto::health_check::Probe;
use fsm_proxy_config::proto::{GrpcCheck, HealthCheck, HttpCheck, Protocol, TrafficPolicy};
use fsm_proxy_config::{Resource, proto};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

use super::app;
use super::client::fetch;
use super::fleet::Fleet;
use super::mesh::{Mesh, Pair};
use crate::upstream::MemberState;

fn checking(probe: Probe) -> TrafficPolicy {
    let check =
        HealthCheck { probe: Some(probe), interval_ms: 10, timeout_ms: 10_000, unhealthy_after: 2, healthy_after: 1 };
    TrafficPolicy { health_check: Some(check), ..Default::default() }
}

/// Waits until the state of an endpoint is as `wanted`.
async fn until(state: impl Fn() -> Option<MemberState>, wanted: impl Fn(&MemberState) -> bool) -> MemberState {
    let reached = async {
        loop {
            match state() {
                Some(state) if wanted(&state) => return state,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.unwrap()
}

#[tokio::test]
async fn a_server_that_is_unwell_is_left_out_before_a_request_fails() {
    let (unwell, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(Semaphore::new(0)));
    let served = Arc::new(AtomicUsize::new(0));
    let answer = {
        let (unwell, asked, served) = (Arc::clone(&unwell), Arc::clone(&asked), Arc::clone(&served));
        move |number, request: Request<Incoming>| {
            let check = request.uri().path() == "/healthy";
            if check && number == 0 {
                assert_eq!(request.headers()["host"], "store.shop");
                asked.add_permits(1);
            }
            if !check && number == 0 {
                served.fetch_add(1, Ordering::SeqCst);
            }
            let status = if number == 0 && unwell.load(Ordering::SeqCst) { 503 } else { 200 };
            async move { Response::builder().status(status).body(app::text("")).unwrap() }
        }
    };
    let probe = Probe::Http(HttpCheck { path: "/healthy".into(), ..Default::default() });
    let mut fleet = Fleet::new(2, checking(probe), answer).await;
    // At the third check, the results of two are known.
    asked.acquire_many(3).await.unwrap().forget();
    let view = fleet.client.handle.data_path();
    let first = fleet.endpoints[0];
    let state = || view.endpoint("shop/store", 80, first);
    assert_eq!(state().unwrap().healthy, Some(false));
    assert_eq!(state().unwrap().health_check_failure.as_deref(), Some("answered 503 Service Unavailable"));
    for _ in 0..20 {
        assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 200);
    }
    assert_eq!(served.load(Ordering::SeqCst), 0);
    assert!(fleet.client.metrics().contains("sidecar_cluster_health_check_failure{"));

    unwell.store(false, Ordering::SeqCst);
    let back = async {
        while served.load(Ordering::SeqCst) == 0 {
            assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 200);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();

    // Without the policy nobody asks any more.
    fleet.apply(TrafficPolicy::default());
    until(state, |state| state.healthy.is_none()).await;
}

fn watched(pair: &Pair, probe: Probe) -> impl Fn() -> Option<MemberState> + use<> {
    let resources = pair.client_resources.clone().with("shop/store", Resource::TrafficPolicy(checking(probe)));
    pair.client.configure(&resources);
    let (view, endpoint) = (pair.client.handle.data_path(), pair.endpoint);
    move || view.endpoint("shop/store", 80, endpoint)
}

#[tokio::test]
async fn a_server_of_grpc_is_asked_in_its_own_way() {
    // It gives back the question, which is no answer that says it is serving.
    let app = app::grpc_echo().await;
    let pair = Mesh::new().pair(app.address, Protocol::Grpc);
    let state = watched(&pair, Probe::Grpc(GrpcCheck::default()));
    let unhealthy = until(state, |state| state.healthy == Some(false)).await;
    let reason = "says that it is not serving (status 0 of grpc.health.v1)";
    assert_eq!(unhealthy.health_check_failure.as_deref(), Some(reason));
}

#[tokio::test]
async fn a_connection_is_enough_where_that_is_asked() {
    let app = app::listen(|_stream| async {}).await;
    let pair = Mesh::new().pair(app.address, proto::Protocol::Tcp);
    until(watched(&pair, Probe::Tcp(true)), |state| state.healthy == Some(true)).await;

    let closed = std::net::SocketAddr::from(([127, 0, 0, 1], app::closed_port().await));
    let pair = Mesh::new().pair(closed, proto::Protocol::Tcp);
    let state = until(watched(&pair, Probe::Tcp(true)), |state| state.healthy == Some(false)).await;
    assert!(state.health_check_failure.unwrap().contains("refused the tunnel"));
}
