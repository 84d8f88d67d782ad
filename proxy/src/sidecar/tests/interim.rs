//! Interim responses (1xx) from the server's application to the client.

use bytes::Bytes;
use fsm_proxy_config::proto::Protocol;
use futures::future::poll_fn;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app::{self, App};
use super::mesh::{Mesh, Pair};

const HINTS: &str =
    "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n";
const FINAL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal";

/// Says `parts` to each request, and goes on with each when the client has said that it heard the one before.
async fn says(parts: &'static [&'static str]) -> App {
    app::listen(move |mut stream| async move {
        let mut asked = [0; 4096];
        while stream.read(&mut asked).await.is_ok_and(|read| read > 0) {
            for part in parts {
                stream.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    })
    .await
}

/// Reads until `text` ends what was read.
async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut said = Vec::new();
    while !said.ends_with(text.as_bytes()) {
        assert_ne!(stream.read_buf(&mut said).await.unwrap(), 0, "{}", String::from_utf8_lossy(&said));
    }
    String::from_utf8(said).unwrap().to_lowercase()
}

async fn ask(pair: &Pair, version: &str) -> String {
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let request = format!("GET / HTTP/1.{version}\r\nhost: store\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut stream, "final").await
}

#[tokio::test]
async fn early_hints_arrive_before_the_final_response() {
    const HINTS_THEN: &[&str] = &[HINTS, "HTTP/1.1 102 Processing\r\n\r\n", FINAL];
    let app = says(HINTS_THEN).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    // On one connection, on which the next request has no interim response of the one before.
    for _ in 0..3 {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: store\r\n\r\n").await.unwrap();
        let said = read_until(&mut stream, "final").await;
        let hints = "http/1.1 103 early hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
        let rest = said.strip_prefix(hints).unwrap_or_else(|| panic!("{said}"));
        let rest = rest.strip_prefix("http/1.1 102 processing\r\n\r\n").unwrap_or_else(|| panic!("{said}"));
        assert!(rest.starts_with("http/1.1 200 ok\r\n"), "{said}");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn hints_arrive_while_the_final_response_is_not_there_yet() {
    let app = app::listen(|mut stream| async move {
        let mut asked = [0; 4096];
        let read = stream.read(&mut asked).await.unwrap();
        assert!(asked[..read].ends_with(b"\r\n\r\n"));
        stream.write_all(HINTS.as_bytes()).await.unwrap();
        // The client sends its body once it has the hints.
        stream.read_exact(&mut [0; 4]).await.unwrap();
        stream.write_all(FINAL.as_bytes()).await.unwrap();
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: store\r\ncontent-length: 4\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("http/1.1 103"));
    stream.write_all(b"body").await.unwrap();
    assert!(read_until(&mut stream, "final").await.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn a_client_of_http10_gets_no_interim_response_and_a_continue_is_not_passed_on() {
    let app = says(&[HINTS, FINAL]).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    assert!(ask(&pair, "0").await.starts_with("http/1.0 200"));
    let app = says(&["HTTP/1.1 100 Continue\r\n\r\n", FINAL]).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    assert!(ask(&pair, "1").await.starts_with("http/1.1 200"));
}

#[tokio::test]
async fn a_server_that_sends_interim_responses_without_end_is_heard_up_to_a_limit() {
    let many: &'static [&'static str] = vec![HINTS; 200].leak();
    let parts: &'static [&'static str] = [many, &[FINAL]].concat().leak();
    let app = says(parts).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let said = ask(&pair, "1").await;
    assert!((1..=16).contains(&said.matches("http/1.1 103").count()), "{said}");
}

#[tokio::test]
async fn interim_responses_pass_through_http2_on_every_leg() {
    let app = app::listen(|stream| async move {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            let hints = Response::builder().status(103).header("link", "</style.css>").body(()).unwrap();
            respond.send_informational(hints).unwrap();
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"final"), true).unwrap();
        }
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http2);
    let stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://store/").body(()).unwrap();
    let (mut response, _) = send.send_request(request, true).unwrap();
    let hints = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
    assert_eq!((hints.status().as_u16(), &hints.headers()["link"]), (103, &"</style.css>".parse().unwrap()));
    assert_eq!(response.await.unwrap().status(), 200);
}
