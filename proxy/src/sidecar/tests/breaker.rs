//! A service that is left alone while too many of its requests fail or are slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use fsm_proxy_config::proto::{CircuitBreaker, Retry, TrafficPolicy};
use http::Response;
use tokio::sync::Semaphore;

use super::app;
use super::client::fetch;
use super::fleet::Fleet;

const HOUR_MS: u32 = 3_600_000;

fn breaking(circuit_breaker: CircuitBreaker) -> TrafficPolicy {
    TrafficPolicy { circuit_breaker: Some(circuit_breaker), ..TrafficPolicy::default() }
}

/// One server, which answers with `status`.
async fn answering(status: &Arc<AtomicU16>, policy: TrafficPolicy) -> Fleet {
    let status = Arc::clone(status);
    Fleet::new(1, policy, move |_, _| {
        let status = status.load(Ordering::SeqCst);
        async move { Response::builder().status(status).body(app::text("")).unwrap() }
    })
    .await
}

fn open_for(fleet: &Fleet) -> Option<u64> {
    fleet.client.handle.data_path().circuit("shop/store", 80).unwrap().open_for_ms
}

#[tokio::test]
async fn a_service_that_fails_too_often_is_left_alone_and_the_answer_is_the_policys() {
    let policy = breaking(CircuitBreaker {
        window_ms: HOUR_MS,
        min_requests: 4,
        errors_per_million: 500_000,
        degraded_ms: HOUR_MS,
        degraded_status: 429,
        degraded_content: "{\"try\":\"later\"}".into(),
        ..CircuitBreaker::default()
    });
    let status = Arc::new(AtomicU16::new(200));
    let fleet = answering(&status, policy).await;
    let outbound = fleet.client.outbound();
    assert_eq!(fetch(outbound, "/").await.status, 200);
    assert_eq!(fetch(outbound, "/").await.status, 200);
    status.store(500, Ordering::SeqCst);
    assert_eq!(fetch(outbound, "/").await.status, 500);
    assert_eq!(open_for(&fleet), None);
    // Two of four.
    assert_eq!(fetch(outbound, "/").await.status, 500);
    assert!(open_for(&fleet).is_some());
    let refused = fetch(outbound, "/").await;
    assert_eq!((refused.status, refused.text.as_str()), (429, "{\"try\":\"later\"}"));
    assert_eq!(refused.headers["fsm-denied"], "circuit_open");
    assert_eq!(refused.headers["content-length"], "15");
    let after: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_000..=3_600).contains(&after), "{after}");
    assert_eq!(fleet.counts(), [4], "the server is left alone");
    assert_eq!(fleet.client.handle.metrics().summary().refused["outbound circuit_open"], 1);
    let page = fleet.client.metrics();
    for name in ["circuit_breaker_opened", "circuit_breaker_refused"] {
        let counted = format!("sidecar_cluster_{name}{{sidecar_cluster_name=\"shop/store\",port=\"80\"}} 1");
        assert!(page.lines().any(|line| line == counted), "{page}");
    }
}

#[tokio::test]
async fn after_its_time_the_service_is_asked_again() {
    let policy =
        breaking(CircuitBreaker { window_ms: HOUR_MS, errors: 1, degraded_ms: 20, ..CircuitBreaker::default() });
    let status = Arc::new(AtomicU16::new(500));
    let fleet = answering(&status, policy).await;
    assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 500);
    status.store(200, Ordering::SeqCst);
    let back = async { while fetch(fleet.client.outbound(), "/").await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("the circuit should close");
    assert_eq!(fleet.counts(), [2]);
}

#[tokio::test]
async fn what_is_slow_counts_and_also_what_its_client_gives_up_for_it() {
    let policy = breaking(CircuitBreaker {
        window_ms: HOUR_MS,
        min_requests: 2,
        slow_after_ms: 50,
        slow: 2,
        degraded_ms: HOUR_MS,
        ..CircuitBreaker::default()
    });
    let arrived = Arc::new(Semaphore::new(0));
    let reached = Arc::clone(&arrived);
    let fleet = Fleet::new(1, policy, move |_, request| {
        let reached = Arc::clone(&reached);
        async move {
            let never = request.uri() == "/never";
            reached.add_permits(1);
            let work = if never { Duration::from_secs(3_600) } else { Duration::from_millis(100) };
            let _ = tokio::time::timeout(work, std::future::pending::<()>()).await;
            Response::new(app::text("at last"))
        }
    })
    .await;
    let outbound = fleet.client.outbound();
    assert_eq!(fetch(outbound, "/").await.status, 200);
    assert_eq!(open_for(&fleet), None);
    let asking = tokio::spawn(fetch(outbound, "/never"));
    arrived.acquire_many(2).await.unwrap().forget();
    // Its client has waited for longer than that when it goes.
    let _ = tokio::time::timeout(Duration::from_millis(60), std::future::pending::<()>()).await;
    asking.abort();
    let opens = async {
        while open_for(&fleet).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), opens).await.expect("two were slow");
    let refused = fetch(outbound, "/").await;
    assert_eq!((refused.status, refused.headers["fsm-denied"].to_str().unwrap()), (503, "circuit_open"));
}

#[tokio::test]
async fn a_request_counts_once_however_often_it_is_sent() {
    let status = Arc::new(AtomicU16::new(503));
    let breaker = CircuitBreaker { window_ms: HOUR_MS, errors: 2, degraded_ms: HOUR_MS, ..CircuitBreaker::default() };
    let retry = Retry { server_errors: true, attempts: 3, backoff_base_ms: 1, ..Retry::default() };
    let fleet = answering(&status, TrafficPolicy { retry: Some(retry), ..breaking(breaker) }).await;
    assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 503);
    assert_eq!((fleet.counts(), open_for(&fleet)), (vec![4], None));
    assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 503);
    assert!(open_for(&fleet).is_some());
}
