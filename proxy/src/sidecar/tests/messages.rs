//! Corners of HTTP that a proxy easily gets wrong.

use bytes::Bytes;
use fsm_proxy_config::proto::Protocol;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app::{self, describe};
use super::client::{collect, connect1};
use super::mesh::{Mesh, Pair};

/// Sends `request` as it is and reads until the proxy closes.
async fn raw(pair: &Pair, request: &str) -> String {
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_arrives_whole() {
    let text = "too large ".repeat(5_000);
    let answer = format!("HTTP/1.1 413 Payload Too Large\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    let app = app::listen(move |mut stream| {
        let answer = answer.clone();
        async move {
            stream.read_exact(&mut [0; 100]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            // Closing with bytes unread would be a reset, and could overtake the answer.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let head = "POST /upload HTTP/1.1\r\nhost: store\r\ncontent-length: 50000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 100_000]).await.unwrap();
    let mut received = String::new();
    while !received.ends_with(&text) {
        let mut piece = vec![0; 4096];
        let len = stream.read(&mut piece).await.unwrap();
        assert!(len > 0, "{received}");
        received.push_str(std::str::from_utf8(&piece[..len]).unwrap());
    }
    assert!(received.starts_with("HTTP/1.1 413"), "{received}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let head =
        "PUT /books HTTP/1.1\r\nhost: store\r\nexpect: 100-continue\r\ncontent-length: 4\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("body=body"), "{answer}");
}

#[tokio::test]
async fn a_head_request_keeps_the_length_of_what_it_does_not_get() {
    let app =
        app::http1(|_| async { Response::builder().header("content-length", "12345").body(app::text("")).unwrap() })
            .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut send = connect1(pair.client.outbound()).await;
    for _ in 0..2 {
        send.ready().await.unwrap();
        let request = Request::head("/books").header("host", "store").body(Full::<Bytes>::default()).unwrap();
        let answered = collect(send.send_request(request).await.unwrap()).await;
        assert_eq!(
            (answered.status, &answered.headers["content-length"], answered.text.as_str()),
            (200, &"12345".parse().unwrap(), "")
        );
    }
}

#[tokio::test]
async fn the_request_line_may_name_the_host_or_none() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    for (request, seen) in [
        ("GET http://store/a HTTP/1.1\r\nhost: store\r\nconnection: close\r\n\r\n", "GET /a HTTP/1.1 host=store"),
        ("OPTIONS * HTTP/1.1\r\nhost: store\r\nconnection: close\r\n\r\n", "OPTIONS * HTTP/1.1 host=store"),
        ("GET /old HTTP/1.0\r\n\r\n", &format!("GET /old HTTP/1.1 host={}", pair.endpoint)),
        (
            "GET /%2e%2E/a//b;c?d=e&f HTTP/1.1\r\nhost: store:80\r\nconnection: close\r\n\r\n",
            "GET /%2e%2E/a//b;c?d=e&f HTTP/1.1 host=store:80",
        ),
    ] {
        let answer = raw(&pair, request).await;
        assert!(answer.contains(seen), "{request}: {answer}");
    }
}

#[tokio::test]
async fn the_meshs_own_headers_cannot_be_set_by_an_application() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let request = "GET / HTTP/1.1\r\nhost: store\r\nfsm-port: 15000\r\nfsm-http-version: 2\r\nfsm-upgrade: 1\r\nconnection: close\r\n\r\n";
    let answer = raw(&pair, request).await;
    assert!(answer.contains("GET / HTTP/1.1 host=store internal=[]"), "{answer}");
}

#[tokio::test]
async fn what_follows_a_request_with_two_lengths_is_no_second_request() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let smuggled = "POST /books HTTP/1.1\r\nhost: store\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\nhost: store\r\n\r\n";
    let answer = raw(&pair, smuggled).await;
    assert!(!answer.contains("/admin"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count() - answer.matches("/books HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn an_upgrade_to_http2_is_answered_in_http1() {
    let app = app::http1(|request| async move {
        assert!(!request.headers().contains_key("upgrade") && !request.headers().contains_key("http2-settings"));
        describe(request).await
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut send = connect1(pair.client.outbound()).await;
    let request = Request::get("/")
        .header("host", "store")
        .header("connection", "Upgrade, HTTP2-Settings")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQAAP__")
        .body(Full::<Bytes>::default())
        .unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.collect().await.unwrap().to_bytes().starts_with(b"GET / HTTP/1.1"));
}
