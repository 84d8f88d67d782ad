//! Requests through two sidecars.

use std::time::Duration;

use bytes::Bytes;
use fsm_proxy_config::proto::Protocol;
use futures::StreamExt;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::app::{self, describe};
use super::client::{collect, connect1, connect2, fetch, get};
use super::mesh::{Mesh, http_policy};

type Piece = Result<Frame<Bytes>, hyper::Error>;

/// A request body that the test feeds piece by piece.
fn fed() -> (mpsc::Sender<Piece>, StreamBody<ReceiverStream<Piece>>) {
    let (feed, body) = mpsc::channel(1);
    (feed, StreamBody::new(ReceiverStream::new(body)))
}

fn data(text: &'static str) -> Piece {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

#[tokio::test]
async fn many_requests_share_one_connection_on_each_leg() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut send = connect1(pair.client.outbound()).await;
    for index in 0..20 {
        send.ready().await.unwrap();
        let answered = collect(send.send_request(get(&format!("/books?n={index}"))).await.unwrap()).await;
        assert_eq!(answered.status, 200);
        assert_eq!(answered.text, format!("GET /books?n={index} HTTP/1.1 host=store internal=[] body="));
        assert_eq!(answered.headers["x-app"], "describe");
        assert!(answered.headers.keys().all(|name| !name.as_str().starts_with("fsm-")));
    }
    assert_eq!(app.connections(), 1);
    let client = pair.client.handle.metrics().summary();
    assert_eq!((client.connections.mtls, client.connections.plaintext), (1, 0));
    assert_eq!(pair.server.handle.metrics().summary().connections.mtls, 1);
    let page = pair.client.metrics();
    let series = "fsm_proxy_requests_total{direction=\"outbound\",service=\"shop/store\",backend=\"shop/store\",class=\"2xx\"} 20";
    assert!(page.lines().any(|line| line == series), "{page}");
    let page = pair.server.metrics();
    let series =
        "fsm_proxy_requests_total{direction=\"inbound\",service=\"shop/store\",source=\"shop/buyer\",class=\"2xx\"} 20";
    assert!(page.lines().any(|line| line == series), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_with_a_length_arrives_whole() {
    let app = app::http1(|request| async move {
        let length = request.headers()["content-length"].clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::builder().header("x-length", length).body(app::text(body)).unwrap()
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let body = "0123456789".repeat(200_000);
    let mut send = connect1(pair.client.outbound()).await;
    let request = Request::post("/books").header("host", "store").body(Full::new(Bytes::from(body.clone()))).unwrap();
    let answered = collect(send.send_request(request).await.unwrap()).await;
    assert_eq!(answered.headers["x-length"], "2000000");
    assert_eq!(answered.headers["content-length"], "2000000");
    assert!(answered.text == body, "the body of {} bytes changed on its way", body.len());
}

#[tokio::test]
async fn chunks_pass_both_ways_while_the_other_side_is_still_sending() {
    let app = app::http1(|request| async move {
        let echoed = http_body_util::BodyStream::new(request.into_body());
        Response::new(BodyExt::boxed(StreamBody::new(echoed)))
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut send = connect1(pair.client.outbound()).await;
    let (feed, body) = fed();
    let request = Request::post("/echo").header("host", "store").body(body).unwrap();
    let response = send.send_request(request);
    feed.send(data("one ")).await.unwrap();
    let mut response = response.await.unwrap();
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    for piece in ["two ", "three"] {
        let echoed = response.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(!echoed.is_empty());
        feed.send(data(piece)).await.unwrap();
    }
    drop(feed);
    let rest = response.collect().await.unwrap().to_bytes();
    assert!(rest.ends_with(b"three"), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_stays_http2_and_grpc_trailers_arrive() {
    let app = app::grpc_echo().await;
    let pair = Mesh::new().pair(app.address, Protocol::Grpc);
    let mut send = connect2(pair.client.outbound()).await;
    let calls = (0..8).map(|index| {
        let request = Request::post("http://store/shop.Books/List")
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(format!("call {index}"))))
            .unwrap();
        send.send_request(request)
    });
    for (index, call) in futures::future::join_all(calls).await.into_iter().enumerate() {
        let answered = collect(call.unwrap()).await;
        assert_eq!(answered.text, format!("call {index}"));
        assert_eq!(answered.headers["x-uri"], "http://store/shop.Books/List");
        assert_eq!(answered.trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_grpc_stream_passes_both_ways() {
    let app = app::grpc_echo().await;
    let pair = Mesh::new().pair(app.address, Protocol::Detect);
    let mut send = connect2(pair.client.outbound()).await;
    let (feed, body) = fed();
    let request = Request::post("http://store/shop.Books/Chat").body(body).unwrap();
    let mut response = send.send_request(request).await.unwrap();
    for piece in ["ping", "pong"] {
        feed.send(data(piece)).await.unwrap();
        assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
    }
    drop(feed);
    assert_eq!(collect(response).await.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_websocket_upgrade_passes_bytes_both_ways() {
    let app = app::http1(|mut request| async move {
        assert_eq!(request.headers()["connection"], "upgrade");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(app::text(""))
            .unwrap()
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut send = connect1(pair.client.outbound()).await;
    let request = Request::get("/books/live")
        .header("host", "store")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(Full::<Bytes>::default())
        .unwrap();
    let mut response = send.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "websocket");
    let mut socket = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    for message in ["hello", "again"] {
        socket.write_all(message.as_bytes()).await.unwrap();
        let mut echoed = vec![0; message.len()];
        socket.read_exact(&mut echoed).await.unwrap();
        assert_eq!(echoed, message.as_bytes());
    }
}

#[tokio::test]
async fn a_request_without_answer_is_given_up_at_the_application_when_the_client_leaves() {
    let (seen, mut requests) = mpsc::channel::<tokio::sync::oneshot::Receiver<()>>(1);
    let app = app::http1(move |_request| {
        let seen = seen.clone();
        async move {
            // Dropped with this future, when the connection of the request ends.
            let (_alive, gone) = tokio::sync::oneshot::channel();
            seen.send(gone).await.unwrap();
            std::future::pending().await
        }
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let client = tokio::spawn(fetch(pair.client.outbound(), "/slow"));
    let gone = requests.recv().await.unwrap();
    client.abort();
    assert!(tokio::time::timeout(Duration::from_secs(10), gone).await.expect("the application was not told").is_err());
}

#[tokio::test]
async fn a_client_that_connects_ahead_of_its_first_request_is_served_as_http() {
    // Allowed as an opaque connection too, or as HTTP only: there the server refuses to be connected to ahead.
    for restricted in [false, true] {
        let app = app::http1(describe).await;
        let pair = Mesh::new().pair(app.address, Protocol::Detect);
        if restricted {
            pair.server.configure(&http_policy(pair.server_resources.clone()));
        }
        let mut send = connect1(pair.client.outbound()).await;
        let counted = || match pair.server.handle.metrics().summary().refused.get("inbound no_rule") {
            Some(refused) => *refused,
            None => app.connections() as u64,
        };
        while counted() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            send.ready().await.unwrap();
            assert_eq!(collect(send.send_request(get("/books")).await.unwrap()).await.status, 200);
        }
        assert_eq!(pair.client.handle.metrics().summary().requests["outbound"], 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_clients_give_up_do_not_end_the_shared_connection() {
    let app = app::http1(|request| async move {
        if request.uri() == "/books" {
            return describe(request).await;
        }
        let some = futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 1024])))).take(20);
        Response::new(BodyExt::boxed(StreamBody::new(some.chain(futures::stream::pending()))))
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let outbound = pair.client.outbound();
    // More than the 1,024 for which HTTP/2 libraries have a limit.
    let given_up = futures::stream::iter(0..1100).map(|_| async move {
        let mut send = connect1(outbound).await;
        let mut response = send.send_request(get("/endless")).await.unwrap();
        response.frame().await.unwrap().unwrap();
    });
    given_up.buffer_unordered(16).collect::<Vec<()>>().await;
    assert_eq!(fetch(outbound, "/books").await.status, 200);
    assert_eq!(pair.client.handle.metrics().summary().connections.mtls, 1);
}
