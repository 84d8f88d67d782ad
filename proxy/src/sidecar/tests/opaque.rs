//! Opaque connections through two sidecars.

use std::io::ErrorKind;

use fsm_proxy_config::proto::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app;
use super::mesh::{Mesh, Resources, pod_ip};
use crate::stream::reset;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_direction_ends_by_itself() {
    let app = app::listen(|mut stream| async move {
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        stream.write_all(format!("got {} bytes", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Tcp);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all("x".repeat(1_000_000).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "got 1000000 bytes");
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let greeting = |mut stream: TcpStream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        let mut line = [0; 4];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"QUIT");
    };
    for protocol in [Protocol::TcpServerFirst, Protocol::Detect] {
        let app = app::listen(greeting).await;
        let pair = Mesh::new().pair(app.address, protocol);
        let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
        let mut line = [0; 11];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"220 ready\r\n");
        stream.write_all(b"QUIT").await.unwrap();
        assert_eq!(stream.read(&mut line).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_reset_is_seen_as_a_reset_at_the_other_end() {
    let app = app::listen(|mut stream| async move {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        reset(stream);
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Tcp);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);

    let (told, mut seen) = tokio::sync::mpsc::channel(1);
    let app = app::listen(move |mut stream| {
        let told = told.clone();
        async move {
            stream.write_all(b"x").await.unwrap();
            told.send(stream.read(&mut [0]).await.map_err(|error| error.kind())).await.unwrap();
        }
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Tcp);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
    reset(stream);
    assert_eq!(seen.recv().await.unwrap(), Err(ErrorKind::ConnectionReset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_does_not_hold_up_others() {
    let app = app::listen(|mut stream| async move {
        let mut asked = [0];
        stream.read_exact(&mut asked).await.unwrap();
        let answer = if asked == *b"L" { vec![0; 8_000_000] } else { vec![1] };
        let _ = stream.write_all(&answer).await;
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Tcp);
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
        stream.write_all(b"L").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        slow.push(stream);
    }
    let mut quick = TcpStream::connect(pair.client.outbound()).await.unwrap();
    quick.write_all(b"S").await.unwrap();
    let mut byte = [0];
    quick.read_exact(&mut byte).await.unwrap();
    assert_eq!(byte, [1]);
    assert_eq!(pair.client.handle.metrics().summary().connections.mtls, 1);
}

#[tokio::test]
async fn an_endpoint_without_a_proxy_is_dialled_directly() {
    let app = app::listen(|mut stream| async move {
        stream.write_all(b"plain").await.unwrap();
    })
    .await;
    let resources = Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", Protocol::Tcp).endpoints(
        "shop/store",
        &[app.address],
        "",
    );
    let client = Mesh::new().pod(super::mesh::CLIENT, pod_ip(), &resources);
    let mut stream = TcpStream::connect(client.outbound()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "plain");
    assert_eq!(client.handle.metrics().summary().connections.plaintext, 1);
}
