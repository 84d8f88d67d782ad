//! Which server gets a request.

use std::time::Duration;

use fsm_proxy_config::proto::{
    BalancerAlgorithm, HashKey, LoadBalancer, SessionCookie, TrafficPolicy, ZonePreference, hash_key,
};
use fsm_proxy_config::{Resource, proto};
use http::Response;

use super::app;
use super::client::{collect, connect1, fetch, get};
use super::fleet::{Fleet, number};

fn policy(load_balancer: LoadBalancer) -> TrafficPolicy {
    TrafficPolicy { load_balancer: Some(load_balancer), ..Default::default() }
}

fn by(algorithm: BalancerAlgorithm) -> LoadBalancer {
    LoadBalancer { algorithm: algorithm.into(), ..Default::default() }
}

#[tokio::test]
async fn a_slow_server_gets_less_by_latency() {
    const SLOW: Duration = Duration::from_millis(300);
    let fleet = Fleet::new(2, policy(by(BalancerAlgorithm::PeakEwma)), |number, _| async move {
        if number == 0 {
            // Its work.
            let _ = tokio::time::timeout(SLOW, std::future::pending::<()>()).await;
        }
        Response::new(app::text("done"))
    })
    .await;
    for _ in 0..30 {
        assert_eq!(fetch(fleet.client.outbound(), "/").await.status, 200);
    }
    let counts = fleet.counts();
    assert!(counts[0] < counts[1], "{counts:?}");
    let view = fleet.client.handle.data_path();
    assert!(view.endpoint("shop/store", 80, fleet.endpoints[1]).unwrap().latency_ms.is_some());
}

#[tokio::test]
async fn servers_take_turns_as_their_weights_say() {
    let mut fleet = Fleet::new(2, policy(by(BalancerAlgorithm::RoundRobin)), number).await;
    for _ in 0..10 {
        fetch(fleet.client.outbound(), "/").await;
    }
    assert_eq!(fleet.counts(), [5, 5]);
    fleet.change(0, |endpoint| endpoint.weight = Some(4));
    for _ in 0..10 {
        fetch(fleet.client.outbound(), "/").await;
    }
    assert_eq!(fleet.counts(), [5 + 8, 5 + 2]);
}

#[tokio::test]
async fn a_key_stays_with_its_server_while_others_come_and_go() {
    let key = HashKey { of: Some(hash_key::Of::Header("x-user".into())) };
    let balancer = LoadBalancer { hash_keys: vec![key], ..by(BalancerAlgorithm::ConsistentHash) };
    let mut fleet = Fleet::new(3, policy(balancer), number).await;
    let outbound = fleet.client.outbound();
    let servers = async || {
        let mut servers = Vec::new();
        let mut send = connect1(outbound).await;
        for user in 0..24 {
            let mut request = get("/");
            request.headers_mut().insert("x-user", format!("user-{user}").parse().unwrap());
            send.ready().await.unwrap();
            servers.push(collect(send.send_request(request).await.unwrap()).await.text);
        }
        servers
    };
    let before = servers().await;
    assert_eq!(before, servers().await);
    fleet.remove(1);
    let after = servers().await;
    for (user, (before, after)) in before.iter().zip(&after).enumerate() {
        assert_ne!(after, "1");
        assert!(before == after || before == "1", "user {user} moved from {before} to {after}");
    }
    fleet.change(1, |_| {});
    assert_eq!(before, servers().await);
}

#[tokio::test]
async fn who_has_no_session_is_given_one_and_comes_to_the_same_server_with_it() {
    let session = SessionCookie { name: "fsm".into(), max_age_s: 0 };
    let balancer = LoadBalancer { session: Some(session), ..by(BalancerAlgorithm::ConsistentHash) };
    let mut fleet = Fleet::new(3, policy(balancer), number).await;
    let outbound = fleet.client.outbound();
    let asked = async |cookie: Option<&str>| {
        let mut request = get("/");
        if let Some(cookie) = cookie {
            request.headers_mut().insert("cookie", cookie.parse().unwrap());
        }
        let answered = collect(connect1(outbound).await.send_request(request).await.unwrap()).await;
        let given = answered.headers.get("set-cookie").map(|given| given.to_str().unwrap().to_owned());
        (answered.text, given)
    };
    let mut sessions = Vec::new();
    // Until each server has one.
    while fleet.counts().contains(&0) {
        let (server, given) = asked(None).await;
        sessions.push((server, given.unwrap().split(';').next().unwrap().to_owned()));
    }
    for (server, cookie) in &sessions {
        assert_eq!(asked(Some(cookie)).await, (server.clone(), None));
    }
    fleet.remove(1);
    for (server, cookie) in &sessions {
        let (now, given) = asked(Some(cookie)).await;
        assert!(given.is_none() && now != "1" && (now == *server || server == "1"), "{server} became {now}");
    }
}

#[tokio::test]
async fn servers_of_the_own_zone_are_preferred_while_they_have_room() {
    let balancer = LoadBalancer { zones: Some(ZonePreference::default()), ..Default::default() };
    let mut fleet = Fleet::new(3, policy(balancer), number).await;
    let workload = proto::Workload {
        namespace: "shop".into(),
        service_account: "buyer".into(),
        zone: "here".into(),
        ..Default::default()
    };
    fleet.resources = fleet.resources.clone().with("workload", Resource::Workload(workload));
    fleet.change(0, |endpoint| endpoint.zone = "here".into());
    fleet.change(1, |endpoint| endpoint.zone = "here".into());
    fleet.change(2, |endpoint| endpoint.zone = "there".into());
    for _ in 0..40 {
        fetch(fleet.client.outbound(), "/").await;
    }
    assert_eq!(fleet.counts()[2], 0);
    // One of three, for half of the clients: a third of what they ask for is too much.
    fleet.change(1, |endpoint| endpoint.zone = "there".into());
    for _ in 0..40 {
        fetch(fleet.client.outbound(), "/").await;
    }
    assert!(fleet.counts()[2] > 0);
}
