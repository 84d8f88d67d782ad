//! What is refused, and what is steered where.

use std::io::ErrorKind;

use bytes::Bytes;
use fsm_proxy_config::Resource;
use fsm_proxy_config::proto::{self, Protocol};
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app::{self, describe};
use super::client::{collect, connect1, connect2, fetch, get};
use super::mesh::{CLIENT, Mesh, Resources, SERVER, VIP, http_policy, pod_ip, tcp_policy};
use crate::accept::OriginalDst;

#[tokio::test]
async fn a_caller_without_policy_is_refused() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    pair.server.configure(&pair.server_resources.clone().settings(|settings| settings.permissive = false));
    let answered = fetch(pair.client.outbound(), "/books").await;
    assert_eq!((answered.status, answered.headers["fsm-denied"].to_str().unwrap()), (403, "no_policy"));
    assert!(answered.text.starts_with("Access denied: "), "{}", answered.text);
    assert_eq!(app.connections(), 0);
    assert_eq!(pair.server.handle.metrics().summary().refused["inbound no_policy"], 1);
}

#[tokio::test]
async fn a_grpc_caller_without_policy_gets_the_grpc_status() {
    let app = app::grpc_echo().await;
    let pair = Mesh::new().pair(app.address, Protocol::Grpc);
    pair.server.configure(&pair.server_resources.clone().settings(|settings| settings.permissive = false));
    let mut send = connect2(pair.client.outbound()).await;
    let request = Request::post("http://store/shop.Books/List")
        .header("content-type", "application/grpc")
        .body(Full::<Bytes>::default())
        .unwrap();
    let answered = collect(send.send_request(request).await.unwrap()).await;
    assert_eq!((answered.status, answered.headers["grpc-status"].to_str().unwrap()), (200, "7"));
}

#[tokio::test]
async fn each_request_is_judged_by_the_configuration_of_its_moment() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let restricted = http_policy(pair.server_resources.clone());
    let closed = pair.server_resources.clone().settings(|settings| settings.permissive = false);
    let mut send = connect1(pair.client.outbound()).await;
    for (resources, path, status) in [
        (&pair.server_resources, "/admin", 200),
        (&restricted, "/admin", 403),
        (&restricted, "/books/1", 200),
        (&closed, "/books/1", 403),
        (&pair.server_resources, "/books/1", 200),
    ] {
        pair.server.configure(resources);
        send.ready().await.unwrap();
        assert_eq!(collect(send.send_request(get(path)).await.unwrap()).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn an_upgrade_is_judged_by_its_own_request() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    pair.server.configure(&http_policy(pair.server_resources.clone()));
    for (path, status) in [("/books/live", 200), ("/admin/live", 403)] {
        let mut send = connect1(pair.client.outbound()).await;
        let request = Request::get(path)
            .header("host", "store")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Full::<Bytes>::default())
            .unwrap();
        assert_eq!(collect(send.send_request(request).await.unwrap()).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn an_opaque_connection_needs_a_tcp_route() {
    let app = app::listen(|mut stream| async move {
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Tcp);
    pair.server.configure(&http_policy(pair.server_resources.clone()));
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(app.connections(), 0);

    pair.server.configure(&tcp_policy(pair.server_resources.clone(), app.address.port()));
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"ping");
}

#[tokio::test]
async fn an_open_connection_ends_when_its_policy_is_gone() {
    let app = app::listen(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Tcp);
    pair.server.configure(&tcp_policy(pair.server_resources.clone(), app.address.port()));
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    pair.server.configure(&tcp_policy(pair.server_resources.clone(), 1));
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_connection_without_bytes_ends_after_the_idle_time_out() {
    let app = app::listen(|mut stream| async move {
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Tcp);
    pair.client.configure(&pair.client_resources.clone().settings(|settings| settings.idle_timeout_ms = 50));
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_not_spoken_to() {
    let app = app::http1(describe).await;
    let mesh = Mesh::new();
    let pair = mesh.pair(app.address, Protocol::Http);
    let resources = pair.client_resources.clone().endpoints(
        "shop/store",
        &[pair.endpoint],
        "spiffe://cluster.local/ns/shop/sa/other",
    );
    pair.client.configure(&resources);
    let answered = fetch(pair.client.outbound(), "/books").await;
    assert_eq!((answered.status, answered.headers["fsm-denied"].to_str().unwrap()), (503, "upstream_unreachable"));
    assert!(answered.text.contains("sa/store"), "{}", answered.text);
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn a_client_of_another_mesh_is_not_let_in() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let stranger = Mesh::new().pod(CLIENT, pod_ip(), &pair.client_resources);
    let answered = fetch(stranger.outbound(), "/books").await;
    assert_eq!(answered.status, 503, "{}", answered.text);
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn plain_connections_from_outside_are_reset_and_counted() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut stream = TcpStream::connect(pair.server.handle.bound().capture[0]).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(pair.server.handle.metrics().summary().connections.plaintext_refused, 1);
    let mut stream = TcpStream::connect((pair.server.ip, super::super::MESH_PORT)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nfsm-port: 80\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn the_proxys_own_ports_are_not_served_to_the_mesh() {
    let mesh = Mesh::new();
    let ip = pod_ip();
    let server = mesh.pod(SERVER, ip, &Resources::new("store", &[(15000, Protocol::Http)]));
    for port in [15000, server.handle.bound().metrics[0].port()] {
        let resources = Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", Protocol::Http).endpoints(
            "shop/store",
            &[std::net::SocketAddr::new(ip, port)],
            SERVER,
        );
        let client = mesh.pod(CLIENT, pod_ip(), &resources);
        let answered = fetch(client.outbound(), "/stats/prometheus").await;
        assert_eq!((answered.status, answered.headers["fsm-denied"].to_str().unwrap()), (403, "own_port"));
    }
}

#[tokio::test]
async fn an_unknown_destination_is_refused_unless_egress_is_on() {
    let app = app::http1(describe).await;
    let to_app = |config: &mut crate::Config| config.original_dst = OriginalDst::Fixed(app.address);
    let closed = Resources::new("buyer", &[]);
    let client = Mesh::new().pod_with(CLIENT, pod_ip(), &closed, to_app);
    let answered = fetch(client.outbound(), "/").await;
    assert_eq!((answered.status, answered.headers["fsm-denied"].to_str().unwrap()), (403, "unknown_destination"));
    let mut stream = TcpStream::connect(client.outbound()).await.unwrap();
    stream.write_all(b"*1\r\n").await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    client.configure(&closed.settings(|settings| settings.egress = true));
    let answered = fetch(client.outbound(), "/").await;
    assert_eq!((answered.status, answered.text.as_str()), (200, "GET / HTTP/1.1 host=store internal=[] body="));
    assert_eq!(client.handle.metrics().summary().connections.plaintext, 1);
}

#[tokio::test]
async fn a_split_sends_each_backend_its_share() {
    let versioned = |version: &'static str| app::http1(move |_| async move { http::Response::new(app::text(version)) });
    let (v1, v2) = (versioned("v1").await, versioned("v2").await);
    let mesh = Mesh::new();
    let (ip1, ip2) = (pod_ip(), pod_ip());
    let _server1 = mesh.pod(SERVER, ip1, &Resources::new("store", &[(v1.address.port(), Protocol::Http)]));
    let _server2 = mesh.pod(SERVER, ip2, &Resources::new("store", &[(v2.address.port(), Protocol::Http)]));
    let split = |first, second| {
        let backends = vec![
            proto::Backend { service: "shop/store-v1".into(), weight: first },
            proto::Backend { service: "shop/store-v2".into(), weight: second },
        ];
        let split = proto::Split { service: "shop/store".into(), backends, route_groups: Vec::new() };
        Resources::new("buyer", &[])
            .service("shop/store", &VIP.ip().to_string(), Protocol::Http)
            .service("shop/store-v1", "", Protocol::Http)
            .service("shop/store-v2", "", Protocol::Http)
            .endpoints("shop/store-v1", &[std::net::SocketAddr::new(ip1, v1.address.port())], SERVER)
            .endpoints("shop/store-v2", &[std::net::SocketAddr::new(ip2, v2.address.port())], SERVER)
            .with("shop/split", Resource::Split(split))
    };
    let client = mesh.pod(CLIENT, pod_ip(), &split(100, 0));
    let mut send = connect1(client.outbound()).await;
    for (first, second, expected) in [(100, 0, 0..=0), (75, 25, 20..=85), (0, 100, 200..=200)] {
        client.configure(&split(first, second));
        let mut from_v2 = 0;
        for _ in 0..200 {
            send.ready().await.unwrap();
            let answered = collect(send.send_request(get("/")).await.unwrap()).await;
            from_v2 += usize::from(answered.text == "v2");
        }
        assert!(expected.contains(&from_v2), "{from_v2} of 200 with {second} %");
    }
}
