//! Starts, failures and ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fsm_proxy_config::proto::Protocol;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::Semaphore;

use super::app::{self, describe};
use super::client::{collect, connect1, fetch, get};
use super::mesh::{CLIENT, Mesh, Resources, SERVER, pod_ip};
use crate::inbound::READY_PORT;
use crate::sidecar::{Addresses, Config, Sidecar, Sources};
use crate::upstream::window;
use crate::workers::Workers;

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_passed_over() {
    let app = app::http1(describe).await;
    let mesh = Mesh::new();
    let pair = mesh.pair(app.address, Protocol::Http);
    let dead: Vec<SocketAddr> = (0..2).map(|_| SocketAddr::new(pod_ip(), app.address.port())).collect();
    let endpoints = [dead[0], dead[1], pair.endpoint];
    pair.client.configure(&pair.client_resources.clone().endpoints("shop/store", &endpoints, SERVER));
    let mut send = connect1(pair.client.outbound()).await;
    for _ in 0..50 {
        send.ready().await.unwrap();
        let request = Request::post("/books").header("host", "store").body(Full::new(Bytes::from("x"))).unwrap();
        assert_eq!(collect(send.send_request(request).await.unwrap()).await.status, 200);
    }
    let retries = pair.client.handle.metrics().summary().retries;
    assert!(retries <= 4, "{retries} retries: dead endpoints are to be remembered");
}

#[tokio::test]
async fn without_any_living_endpoint_the_answer_is_503() {
    let mesh = Mesh::new();
    let resources = Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", Protocol::Http).endpoints(
        "shop/store",
        &[SocketAddr::new(pod_ip(), 80)],
        SERVER,
    );
    let client = mesh.pod(CLIENT, pod_ip(), &resources);
    let answered = fetch(client.outbound(), "/").await;
    assert_eq!((answered.status, answered.headers["fsm-denied"].to_str().unwrap()), (503, "upstream_unreachable"));
    client.configure(&resources.endpoints("shop/store", &[], SERVER));
    let answered = fetch(client.outbound(), "/").await;
    assert_eq!((answered.status, answered.headers["fsm-denied"].to_str().unwrap()), (503, "no_backend"));
}

#[tokio::test]
async fn an_application_that_is_down_is_a_503_of_its_sidecar() {
    let address = SocketAddr::from(([127, 0, 0, 1], app::closed_port().await));
    let pair = Mesh::new().pair(address, Protocol::Http);
    let answered = fetch(pair.client.outbound(), "/").await;
    assert_eq!((answered.status, answered.headers["fsm-denied"].to_str().unwrap()), (503, "upstream_unreachable"));
    assert_eq!(pair.server.handle.metrics().summary().refused["inbound upstream_unreachable"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_closes_after_each_response_costs_no_request() {
    let app = app::listen(|stream| async move {
        let service = hyper::service::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(Response::new(app::text("one")))
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
            .await;
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut send = connect1(pair.client.outbound()).await;
    for _ in 0..50 {
        send.ready().await.unwrap();
        assert_eq!(collect(send.send_request(get("/")).await.unwrap()).await.text, "one");
    }
    assert_eq!(app.connections(), 50);
}

#[tokio::test]
async fn every_worker_has_its_connections_and_all_are_drained() {
    let app = app::http1(describe).await;
    let mesh = Mesh::new();
    let resources = Resources::new("store", &[(app.address.port(), Protocol::Http)]);
    let server = mesh.pod_with(SERVER, pod_ip(), &resources, |config| config.workers = Workers::start(2).unwrap());
    let endpoint = SocketAddr::new(server.ip, app.address.port());
    let resources = Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", Protocol::Http).endpoints(
        "shop/store",
        &[endpoint],
        SERVER,
    );
    let client = mesh.pod_with(CLIENT, pod_ip(), &resources, |config| config.workers = Workers::start(3).unwrap());
    let mut open = Vec::new();
    for _ in 0..9 {
        let mut send = connect1(client.outbound()).await;
        assert_eq!(collect(send.send_request(get("/")).await.unwrap()).await.status, 200);
        open.push(send);
    }
    // One to the peer for each worker, whatever the number of connections from the application.
    assert_eq!(client.handle.metrics().summary().connections.mtls, 3);
    assert_eq!(server.handle.metrics().summary().connections.mtls, 3);
    for send in &mut open {
        send.ready().await.unwrap();
        assert_eq!(collect(send.send_request(get("/again")).await.unwrap()).await.status, 200);
    }
    assert!(client.handle.drain().await);
    assert!(server.handle.drain().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_is_dialled_again() {
    let app = app::http1(describe).await;
    let mesh = Mesh::new();
    let pair = mesh.pair(app.address, Protocol::Http);
    assert_eq!(fetch(pair.client.outbound(), "/").await.status, 200);
    assert!(pair.server.handle.drain().await);
    let ip = pair.server.ip;
    drop(pair.server);
    assert_eq!(fetch(pair.client.outbound(), "/").await.status, 503);
    let _server = mesh.pod(SERVER, ip, &pair.server_resources);
    assert_eq!(fetch(pair.client.outbound(), "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_one_of_two_servers_ends() {
    let app = app::http1(describe).await;
    let mesh = Mesh::new();
    let pair = mesh.pair(app.address, Protocol::Http);
    let other = SocketAddr::new(pod_ip(), app.address.port());
    let _other = mesh.pod(SERVER, other.ip(), &pair.server_resources);
    pair.client.configure(&pair.client_resources.clone().endpoints("shop/store", &[pair.endpoint, other], SERVER));
    let (outbound, ended) = (pair.client.outbound(), tokio_util::sync::CancellationToken::new());
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let ended = ended.clone();
            tokio::spawn(async move {
                let mut send = connect1(outbound).await;
                let (mut sent, mut after) = (0, 0);
                while after < 50 {
                    send.ready().await.unwrap();
                    let request = Request::post("/").header("host", "store").body(Full::new(Bytes::from("x"))).unwrap();
                    let answered = collect(send.send_request(request).await.unwrap()).await;
                    assert_eq!(answered.status, 200, "request {sent}: {}", answered.text);
                    sent += 1;
                    after += usize::from(ended.is_cancelled());
                }
                sent
            })
        })
        .collect();
    while pair.server.handle.metrics().summary().requests["inbound"] < 20 {
        tokio::task::yield_now().await;
    }
    assert!(pair.server.handle.drain().await);
    drop(pair.server);
    ended.cancel();
    for client in clients {
        assert!(client.await.unwrap() >= 50);
    }
}

#[tokio::test]
async fn a_drain_lets_requests_under_way_finish() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let app = {
        let (arrived, gate) = (Arc::clone(&arrived), Arc::clone(&gate));
        app::http1(move |_| {
            let (arrived, gate) = (Arc::clone(&arrived), Arc::clone(&gate));
            async move {
                arrived.add_permits(1);
                gate.acquire().await.unwrap().forget();
                Response::new(app::text("finished"))
            }
        })
        .await
    };
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let under_way = tokio::spawn(fetch(pair.client.outbound(), "/slow"));
    arrived.acquire().await.unwrap().forget();
    let (client, server) = (pair.client, pair.server);
    let outbound = client.outbound();
    let drains = tokio::spawn(async move { (client.handle.drain().await, server.handle.drain().await) });
    // The listener is gone as soon as the drain has begun.
    while tokio::net::TcpStream::connect(outbound).await.is_ok() {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    assert_eq!(under_way.await.unwrap().text, "finished");
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), drains).await.unwrap().unwrap(), (true, true));
}

#[tokio::test]
async fn probes_are_relayed_and_readiness_needs_certificate_and_configuration() {
    let app = app::http1(|request| async move {
        let custom = request.headers().get("x-probe").is_some();
        let well = custom && request.uri() == "/live?deep=1" && !request.headers().contains_key("original-http-port");
        Response::builder().status(if well { 204 } else { 500 }).body(app::text("secret")).unwrap()
    })
    .await;
    let ip = pod_ip();
    let any = || vec![SocketAddr::new(ip, 0)];
    let addresses =
        Addresses { outbound: any(), capture: any(), mesh: any(), metrics: any(), probes: any(), names: any() };
    let waiting = Sidecar::start(Config { addresses, ..Config::default() }, Sources::default()).unwrap();
    assert_eq!(fetch(waiting.bound().probes[0], "/fsm-ready").await.status, 503);

    // Through the capture listener, as if steered there from the port that says so.
    let addresses = Addresses {
        outbound: any(),
        capture: vec![SocketAddr::new(pod_ip(), READY_PORT)],
        mesh: any(),
        metrics: any(),
        probes: any(),
        names: any(),
    };
    let steered = Sidecar::start(Config { addresses, ..Config::default() }, Sources::default()).unwrap();
    assert_eq!(fetch(steered.bound().capture[0], "/fsm-ready").await.status, 503);

    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let probes = pair.server.handle.bound().probes[0];
    assert_eq!(fetch(probes, "/fsm-ready").await.status, 200);
    let probe = async |headers: &[(&str, &str)]| {
        let mut request = get("/fsm-healthcheck");
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        collect(connect1(probes).await.send_request(request).await.unwrap()).await
    };
    let port = app.address.port().to_string();
    let http = [("original-http-port", port.as_str()), ("original-http-path", "/live?deep=1")];
    let well = probe(&[http[0], http[1], ("x-probe", "1")]).await;
    assert_eq!((well.status, well.text.as_str()), (204, ""));
    let unwell = probe(&http).await;
    assert_eq!((unwell.status, unwell.text.as_str()), (500, ""));
    assert_eq!(probe(&[("original-tcp-port", &port)]).await.status, 200);
    let closed = app::closed_port().await.to_string();
    assert_eq!(probe(&[("original-tcp-port", &closed)]).await.status, 503);
    assert_eq!(probe(&[("original-tcp-port", "15000")]).await.status, 503);
}

#[tokio::test]
async fn the_metrics_page_is_served() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    fetch(pair.client.outbound(), "/").await;
    let page = fetch(pair.client.handle.bound().metrics[0], "/stats/prometheus").await;
    assert_eq!(page.status, 200);
    for line in [
        "sidecar_server_live 1",
        "fsm_proxy_config_seq 1",
        "sidecar_cluster_upstream_rq_total{sidecar_cluster_name=\"shop/store\",service=\"shop/store\"} 1",
        "fsm_proxy_connections_total{direction=\"outbound\",kind=\"mesh\",security=\"mtls\"} 1",
    ] {
        assert!(page.text.lines().any(|one| one == line), "no line {line} in\n{}", page.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_at_once_than_a_connection_takes_get_another_connection() {
    const CROWD: u32 = window::STREAMS + 50;
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let app = {
        let (arrived, gate) = (Arc::clone(&arrived), Arc::clone(&gate));
        app::http1(move |_| {
            let (arrived, gate) = (Arc::clone(&arrived), Arc::clone(&gate));
            async move {
                arrived.add_permits(1);
                gate.acquire().await.unwrap().forget();
                Response::new(app::text("crowd"))
            }
        })
        .await
    };
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let outbound = pair.client.outbound();
    let crowd: Vec<_> = (0..CROWD).map(|_| tokio::spawn(fetch(outbound, "/"))).collect();
    // All of them are at the application at the same time.
    let all = tokio::time::timeout(Duration::from_secs(20), arrived.acquire_many(CROWD)).await;
    let seen = || (pair.client.handle.metrics().summary(), pair.server.handle.metrics().summary());
    all.unwrap_or_else(|_| panic!("{} of {CROWD} arrived; {:#?}", arrived.available_permits(), seen()))
        .unwrap()
        .forget();
    assert_eq!(pair.client.handle.metrics().summary().connections.mtls, 2);
    gate.add_permits(CROWD as usize);
    for one in crowd {
        assert_eq!(one.await.unwrap().text, "crowd");
    }
    let all = format!(r#"direction="outbound",service="shop/store",backend="shop/store",class="2xx"}} {CROWD}"#);
    assert!(pair.client.metrics().contains(&all));
    assert!(
        pair.client.metrics().contains(
            "fsm_proxy_requests_open{direction=\"outbound\",service=\"shop/store\",backend=\"shop/store\"} 0"
        )
    );
}
