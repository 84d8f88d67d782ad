//! WebSockets of either version of HTTP, to servers of either version.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use fsm_proxy_config::proto::Protocol;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::app::{self, App};
use super::client::{collect, connect1, get};
use super::mesh::{Mesh, Pair, http_policy};

/// An HTTP/2 connection of an application that knows extended CONNECT.
pub(super) async fn connect(pair: &Pair) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let (send, mut connection) = h2::client::handshake(stream).await.unwrap();
    let mut ping = connection.ping_pong().unwrap();
    tokio::spawn(connection);
    ping.ping(h2::Ping::opaque()).await.unwrap();
    assert!(send.is_extended_connect_protocol_enabled());
    send
}

pub(super) fn asking(path: &str) -> Request<()> {
    let request = Request::connect(format!("http://store{path}"))
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat");
    request.extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap()
}

async fn open(pair: &Pair, request: Request<()>) -> (Response<RecvStream>, SendStream<Bytes>) {
    let (response, stream) = connect(pair).await.send_request(request, false).unwrap();
    (response.await.unwrap(), stream)
}

pub(super) async fn next(stream: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        match stream.data().await? {
            // The end of a stream may come in a frame of its own.
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                stream.flow_control().release_capacity(data.len()).unwrap();
                return Some(Ok(data));
            }
            broken => return Some(broken),
        }
    }
}

/// A WebSocket server of HTTP/1.1 that tells what it was asked, then repeats what it hears, then says goodbye.
pub(super) async fn server1() -> (App, mpsc::Receiver<(String, HeaderMap)>) {
    let (seen, asked) = mpsc::channel(8);
    let app = app::http1(move |mut request| {
        let seen = seen.clone();
        async move {
            let line = format!("{} {} {:?}", request.method(), request.uri(), request.version());
            seen.send((line, request.headers().clone())).await.unwrap();
            let Some(key) = request.headers().get("sec-websocket-key") else {
                return Response::new(app::text("no WebSocket"));
            };
            let accept = crate::websocket::accept(key);
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut socket = TokioIo::new(upgraded.await.unwrap());
                echo(&mut socket).await;
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", accept)
                .header("sec-websocket-protocol", "chat")
                .body(app::text(""))
                .unwrap()
        }
    })
    .await;
    (app, asked)
}

async fn echo(socket: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin)) {
    let mut buffer = [0; 1024];
    loop {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => socket.write_all(&buffer[..read]).await.unwrap(),
        }
    }
    let _ = socket.write_all(b"goodbye").await;
    let _ = socket.shutdown().await;
}

/// A server of HTTP/2 only, whose one stream each connection hands to `serve`.
async fn server2<F, Fut>(serve: F) -> App
where
    F: Fn(Request<RecvStream>, h2::server::SendResponse<Bytes>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    app::listen(move |stream| {
        let serve = serve.clone();
        async move {
            let mut builder = h2::server::Builder::new();
            let Ok(mut connection) = builder.enable_connect_protocol().handshake(stream).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(serve(request, respond));
            }
        }
    })
    .await
}

/// Repeats what it hears on a stream, as [`server1`] does on a connection.
async fn echo2(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let protocol = request.extensions().get::<h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
    let asked = format!("{} {} {protocol:?}", request.method(), request.uri());
    let without_key = !request.headers().contains_key("sec-websocket-key");
    let response = Response::builder().header("x-asked", asked).header("x-without-key", without_key.to_string());
    let mut send = respond.send_response(response.body(()).unwrap(), false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(data)) = next(&mut body).await {
        send.send_data(data, false).unwrap();
    }
    let _ = send.send_data(Bytes::from_static(b"goodbye"), true);
}

/// Says two words, ends its side, and hears what the server says to that.
async fn talk(mut response: Response<RecvStream>, mut stream: SendStream<Bytes>) {
    for word in ["hello", "again"] {
        stream.send_data(Bytes::from(word), false).unwrap();
        assert_eq!(next(response.body_mut()).await.unwrap().unwrap(), word);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(next(response.body_mut()).await.unwrap().unwrap(), "goodbye");
    assert!(next(response.body_mut()).await.is_none());
}

#[tokio::test]
async fn a_websocket_of_http2_reaches_a_server_of_http1() {
    let (app, mut asked) = server1().await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    pair.server.configure(&http_policy(pair.server_resources.clone()));
    let (response, stream) = open(&pair, asking("/books/live?n=1")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let (line, headers) = asked.recv().await.unwrap();
    assert_eq!(line, "GET /books/live?n=1 HTTP/1.1");
    assert_eq!(
        (&headers["host"], &headers["sec-websocket-version"]),
        (&"store".parse().unwrap(), &"13".parse().unwrap())
    );
    assert!(headers.keys().all(|name| !name.as_str().starts_with("fsm-")));
    talk(response, stream).await;
}

#[tokio::test]
async fn a_websocket_of_http2_stays_one_at_a_server_of_http2() {
    let app = server2(echo2).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    for _ in 0..2 {
        let (response, stream) = open(&pair, asking("/books/live")).await;
        assert_eq!(
            (response.status(), &response.headers()["x-without-key"]),
            (StatusCode::OK, &"true".parse().unwrap())
        );
        assert_eq!(response.headers()["x-asked"], "CONNECT http://store/books/live Some(\"websocket\")");
        talk(response, stream).await;
    }
    assert_eq!(app.connections(), 1);
}

/// Upgrades an HTTP/1.1 connection to `path`.
async fn upgraded(pair: &Pair, path: &str) -> Response<hyper::body::Incoming> {
    let request = Request::get(path)
        .header("host", "store")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(Full::<Bytes>::default())
        .unwrap();
    connect1(pair.client.outbound()).await.send_request(request).await.unwrap()
}

#[tokio::test]
async fn a_websocket_of_http1_reaches_a_server_that_speaks_http2_only() {
    let app = server2(echo2).await;
    let pair = Mesh::new().pair(app.address, Protocol::Http2);
    let mut response = upgraded(&pair, "/books/live").await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let mut socket = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    socket.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    socket.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    socket.shutdown().await.unwrap();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "goodbye");
}

#[tokio::test]
async fn a_server_without_websockets_says_so_itself() {
    let app = server2(|_, mut respond| async move {
        let response = Response::builder().status(404).body(()).unwrap();
        respond.send_response(response, false).unwrap().send_data(Bytes::from_static(b"none here"), true).unwrap();
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http2);
    let (mut response, _stream) = open(&pair, asking("/")).await;
    assert_eq!(response.status(), 404);
    assert_eq!(next(response.body_mut()).await.unwrap().unwrap(), "none here");
    let answered = collect(upgraded(&pair, "/").await).await;
    assert_eq!((answered.status, answered.text.as_str()), (404, "none here"));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_key_is_no_websocket() {
    let app = app::http1(|_| async {
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
        response.header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").body(app::text("")).unwrap()
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let (response, _stream) = open(&pair, asking("/")).await;
    assert_eq!(
        (response.status(), &response.headers()["fsm-denied"]),
        (StatusCode::BAD_GATEWAY, &"upstream_broke_off".parse().unwrap())
    );
}

#[tokio::test]
async fn a_reset_passes_both_ways() {
    // The server's end.
    let app = server2(|request, mut respond| async move {
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        next(&mut request.into_body()).await.unwrap().unwrap();
        send.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http2);
    let (mut response, mut stream) = open(&pair, asking("/")).await;
    stream.send_data(Bytes::from_static(b"x"), false).unwrap();
    assert!(next(response.body_mut()).await.unwrap().unwrap_err().is_reset());

    // The client's end, at a server of HTTP/1.1.
    let (ended, mut ends) = mpsc::channel(1);
    let app = app::listen(move |mut stream| {
        let ended = ended.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
            let accept = crate::websocket::accept(&key.parse().unwrap());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\n",
                accept.to_str().unwrap()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            ended.send(stream.read_u8().await.unwrap_err().kind()).await.unwrap();
        }
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let (_response, mut stream) = open(&pair, asking("/")).await;
    stream.send_reset(h2::Reason::CANCEL);
    assert_eq!(ends.recv().await.unwrap(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_websocket_is_judged_as_the_get_that_it_stands_for_and_ends_with_its_permission() {
    let (app, _asked) = server1().await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let closed = pair.server_resources.clone().settings(|settings| settings.permissive = false);
    pair.server.configure(&http_policy(pair.server_resources.clone()));
    assert_eq!(upgraded(&pair, "/admin/live").await.status(), 403);
    let (response, _stream) = open(&pair, asking("/admin/live")).await;
    assert_eq!(
        (response.status(), &response.headers()["fsm-denied"]),
        (StatusCode::FORBIDDEN, &"no_rule".parse().unwrap())
    );

    let mut of_http1 = upgraded(&pair, "/books/live").await;
    let mut socket = TokioIo::new(hyper::upgrade::on(&mut of_http1).await.unwrap());
    let (mut of_http2, mut stream) = open(&pair, asking("/books/live")).await;
    socket.write_all(b"hello").await.unwrap();
    socket.read_exact(&mut [0; 5]).await.unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    next(of_http2.body_mut()).await.unwrap().unwrap();
    pair.server.configure(&closed);
    assert_eq!(socket.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    assert!(next(of_http2.body_mut()).await.unwrap().unwrap_err().is_reset());
}

#[tokio::test]
async fn a_websocket_counts_as_a_request_under_way_until_it_ends() {
    let (app, _asked) = server1().await;
    let ca = Mesh::new();
    let pair = ca.pair(app.address, Protocol::Http);
    let ip = super::mesh::pod_ip();
    let client = ca.pod_with(super::mesh::CLIENT, ip, &pair.client_resources, |config| config.limits.requests = 1);
    let pair = Pair { client, ..pair };
    for http2 in [false, true] {
        let open: Box<dyn std::any::Any> = match http2 {
            false => Box::new(hyper::upgrade::on(upgraded(&pair, "/books").await).await.unwrap()),
            true => Box::new(open(&pair, asking("/books")).await),
        };
        let ask = async || collect(connect1(pair.client.outbound()).await.send_request(get("/")).await.unwrap()).await;
        let answered = ask().await;
        assert_eq!(
            (answered.status, &answered.headers["fsm-denied"]),
            (503, &"overloaded".parse().unwrap()),
            "{http2}"
        );
        drop(open);
        while ask().await.status != 200 {}
    }
}

#[tokio::test]
async fn other_protocols_and_plain_tunnels_are_refused() {
    let (app, _asked) = server1().await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let other =
        Request::connect("http://store/").extension(h2::ext::Protocol::from_static("connect-udp")).body(()).unwrap();
    let plain = Request::builder().method(Method::CONNECT).uri("store:80").body(()).unwrap();
    for request in [other, plain] {
        let (response, _stream) = open(&pair, request).await;
        assert_eq!(
            (response.status(), &response.headers()["fsm-denied"]),
            (StatusCode::NOT_IMPLEMENTED, &"connect_unsupported".parse().unwrap())
        );
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn a_drain_waits_for_a_websocket() {
    let (app, _asked) = server1().await;
    let mesh = Mesh::new();
    for http2 in [false, true] {
        let pair = mesh.pair(app.address, Protocol::Http);
        let mut drains = pin!(async { tokio::join!(pair.client.handle.drain(), pair.server.handle.drain()) });
        let mut goes_on = async || tokio::time::timeout(Duration::from_millis(50), &mut drains).await.is_err();
        if http2 {
            let (mut response, mut stream) = open(&pair, asking("/books")).await;
            assert!(goes_on().await);
            stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
            assert_eq!(next(response.body_mut()).await.unwrap().unwrap(), "hello");
            assert!(goes_on().await);
        } else {
            let mut socket = TokioIo::new(hyper::upgrade::on(upgraded(&pair, "/books").await).await.unwrap());
            assert!(goes_on().await);
            socket.write_all(b"hello").await.unwrap();
            socket.read_exact(&mut [0; 5]).await.unwrap();
            assert!(goes_on().await);
        }
        assert_eq!(drains.await, (true, true));
    }
}
