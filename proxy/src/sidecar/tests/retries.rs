//! Requests that are sent again, and requests that take too long.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fsm_proxy_config::proto::{BalancerAlgorithm, LoadBalancer, Retry, RetryBudget, TrafficPolicy};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::Semaphore;

use super::app::{self, AppBody};
use super::client::{Answered, collect, connect1, fetch};
use super::fleet::Fleet;

/// In turn, so that every other request comes to the first of two servers.
fn policy(retry: Retry) -> TrafficPolicy {
    let balancer = LoadBalancer { algorithm: BalancerAlgorithm::RoundRobin.into(), ..Default::default() };
    TrafficPolicy { load_balancer: Some(balancer), retry: Some(retry), ..Default::default() }
}

fn status(status: u16, text: String) -> Response<AppBody> {
    Response::builder().status(status).body(app::text(text)).unwrap()
}

/// 503 from the first server; the others say what they were sent.
async fn first_fails(number: usize, request: Request<Incoming>) -> Response<AppBody> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    status(if number == 0 { 503 } else { 200 }, String::from_utf8(body.to_vec()).unwrap())
}

async fn post(fleet: &Fleet, body: &str) -> Answered {
    let mut send = connect1(fleet.client.outbound()).await;
    let request = Request::post("/").header("host", "store").body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    collect(send.send_request(request).await.unwrap()).await
}

fn line(fleet: &Fleet, name: &str) -> String {
    let page = fleet.client.metrics();
    let name = format!("sidecar_cluster_upstream_rq_{name}{{");
    page.lines().find(|line| line.starts_with(&name)).unwrap_or_else(|| panic!("no {name} in {page}")).to_owned()
}

#[tokio::test]
async fn a_request_is_sent_again_after_a_status_that_the_policy_names() {
    let retry = Retry { statuses: vec![503], ..Default::default() };
    let mut fleet = Fleet::new(2, policy(retry.clone()), first_fails).await;
    for _ in 0..6 {
        assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 200);
    }
    assert!(fleet.counts()[0] >= 3, "{:?}", fleet.counts());
    assert!(line(&fleet, "retry_success").ends_with(&format!(" {}", fleet.counts()[0])));

    // What might be done twice only if it is said.
    let before = fleet.counts()[0];
    let answers = [post(&fleet, "x").await.status, post(&fleet, "x").await.status];
    assert!(answers.contains(&503) && fleet.counts()[0] == before + 1, "{answers:?}");
    fleet.apply(policy(Retry { non_idempotent: true, ..retry }));
    for _ in 0..4 {
        let answered = post(&fleet, "a body").await;
        assert_eq!((answered.status, answered.text.as_str()), (200, "a body"));
    }
    assert!(fleet.counts()[0] >= before + 3, "{:?}", fleet.counts());

    // More of a body than is kept.
    let body = "0123456789".repeat(10_000);
    let answers = [post(&fleet, &body).await, post(&fleet, &body).await];
    let statuses = answers.map(|answered| answered.status);
    assert!(statuses.contains(&503) && statuses.contains(&200), "{statuses:?}");
}

#[tokio::test]
async fn after_the_last_retry_the_answer_is_that_of_the_server() {
    let retry = Retry { server_errors: true, attempts: 2, ..Default::default() };
    let fleet = Fleet::new(1, policy(retry), first_fails).await;
    assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 503);
    assert_eq!(fleet.counts(), [3]);
    assert!(line(&fleet, "retry_limit_exceeded").ends_with(" 1"));
}

#[tokio::test]
async fn a_budget_keeps_retries_from_becoming_a_storm() {
    const CROWD: usize = 20;
    let (gate, arrived) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (held, at) = (Arc::clone(&gate), Arc::clone(&arrived));
    let (all, everybody) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (there, opened) = (Arc::clone(&all), Arc::clone(&everybody));
    // The first requests are answered when all of them are there, those that come again when the test says so.
    let answer = move |_, _| {
        let (held, at) = (Arc::clone(&held), Arc::clone(&at));
        let (there, opened) = (Arc::clone(&there), Arc::clone(&opened));
        async move {
            let first = at.fetch_add(1, Ordering::SeqCst) < CROWD;
            there.add_permits(1);
            (if first { opened } else { held }).acquire().await.unwrap().forget();
            status(503, String::new())
        }
    };
    let budget = RetryBudget { percent: Some(0), min_concurrent: Some(1) };
    let fleet =
        Fleet::new(1, policy(Retry { server_errors: true, budget: Some(budget), ..Default::default() }), answer).await;
    let outbound = fleet.client.outbound();
    let mut crowd: Vec<_> = (0..CROWD).map(|_| tokio::spawn(fetch(outbound, "/"))).collect();
    all.acquire_many(CROWD as u32).await.unwrap().forget();
    everybody.add_permits(CROWD);
    // All but one, which is sent again and waits, are answered.
    for _ in 1..CROWD {
        let (answered, _, rest) = futures::future::select_all(crowd).await;
        assert_eq!(answered.unwrap().status, 503);
        crowd = rest;
    }
    all.acquire().await.unwrap().forget();
    assert_eq!(arrived.load(Ordering::SeqCst), CROWD + 1);
    assert!(line(&fleet, "retry_overflow").ends_with(&format!(" {}", CROWD - 1)));
    gate.add_permits(1);
    assert_eq!(crowd.pop().unwrap().await.unwrap().status, 503);
    // And then there is room for one again.
    gate.add_permits(2);
    assert_eq!(fetch(outbound, "/").await.status, 503);
    assert_eq!(arrived.load(Ordering::SeqCst), CROWD + 3);
}

/// Tells when it is dropped.
struct GivenUp(Arc<Semaphore>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_given_up_and_made_elsewhere() {
    let given_up = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&given_up);
    let answer = move |number, request: Request<Incoming>| {
        let told = Arc::clone(&told);
        async move {
            if number == 0 {
                let _given_up = GivenUp(told);
                std::future::pending::<()>().await;
            }
            first_fails(1, request).await
        }
    };
    let retry = Retry { per_try_timeout_ms: 1000, non_idempotent: true, ..Default::default() };
    let fleet = Fleet::new(2, policy(retry), answer).await;
    for _ in 0..2 {
        let answered = post(&fleet, "hello").await;
        assert_eq!((answered.status, answered.text.as_str()), (200, "hello"));
    }
    // The server does not go on with what nobody waits for.
    given_up.acquire().await.unwrap().forget();
    assert!(!line(&fleet, "per_try_timeout").ends_with(" 0"));
}

#[tokio::test]
async fn a_request_has_as_much_time_as_the_policy_or_its_own_deadline_says() {
    let answer = |_, request: Request<Incoming>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        let first = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"begun")))]);
        let rest = futures::stream::pending();
        Response::new(StreamBody::new(futures::StreamExt::chain(first, rest)).map_err(|never| match never {}).boxed())
    };
    let timeout = |request_timeout_ms| TrafficPolicy { request_timeout_ms, ..Default::default() };
    let mut fleet = Fleet::new(1, timeout(1000), answer).await;
    let answered = fetch(fleet.client.outbound(), "/never").await;
    assert_eq!((answered.status, answered.headers["fsm-denied"].to_str().unwrap()), (504, "request_timeout"));
    assert!(line(&fleet, "timeout").ends_with(" 1"));

    // A response that has begun breaks off.
    let mut send = connect1(fleet.client.outbound()).await;
    let response = send.send_request(super::client::get("/begins")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.collect().await.is_err());

    // An hour by the policy, and less as the caller of gRPC has it.
    fleet.apply(timeout(3_600_000));
    let mut send = connect1(fleet.client.outbound()).await;
    let call = Request::post("/never")
        .header("host", "store")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "100m")
        .body(Full::new(Bytes::from_static(b"call")))
        .unwrap();
    let answered = collect(send.send_request(call).await.unwrap()).await;
    assert_eq!((answered.status, answered.headers["grpc-status"].to_str().unwrap()), (200, "4"));
}
