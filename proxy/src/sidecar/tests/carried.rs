//! What is told of connections whose bytes are carried as they are: opaque ones, and those that switched to another protocol.

use bytes::Bytes;
use fsm_proxy_config::proto::{self, Protocol};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::app;
use super::mesh::{CLIENT, Mesh, Pair, Resources};
use super::observed::{Lines, all, pair, tracing};
use super::websocket::{asking, connect, next, server1};
use crate::telemetry::collector::Collector;

fn logging(resources: Resources) -> Resources {
    resources.settings(|settings| settings.access_log = all(proto::LogFormat::Json))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_connection_is_a_line_at_its_end() {
    let app = app::listen(|mut stream| async move {
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(&[7; 70_000]).await.unwrap();
    })
    .await;
    let (pair, client, server) = pair(&Mesh::new(), app.address, Protocol::Tcp, logging);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), 70_000);
    for (line, direction) in [(client.json(), "outbound"), (server.json(), "inbound")] {
        let told = (&line["protocol"], &line["direction"], &line["bytes_received"], &line["bytes_sent"]);
        assert_eq!(told, (&"tcp".into(), &direction.into(), &5.into(), &70_000.into()), "{line}");
    }
}

/// After a WebSocket on which a client said "hello", and heard that and "goodbye".
fn is_told(pair: &Pair, client: &Lines, server: &Lines, before: (u64, u64)) {
    for (line, direction) in [(client.json(), "outbound"), (server.json(), "inbound")] {
        let told = (&line["path"], &line["direction"], &line["response_code"]);
        assert_eq!(told, (&"/chat".into(), &direction.into(), &101.into()), "{line}");
        assert_eq!((&line["bytes_received"], &line["bytes_sent"]), (&5.into(), &12.into()), "{line}");
    }
    let (received, sent) = (before.0 + 5, before.1 + 12);
    for (page, name, bytes) in [
        (pair.client.metrics(), "sidecar_cluster_upstream_cx_tx_bytes_total{", received),
        (pair.client.metrics(), "sidecar_cluster_upstream_cx_rx_bytes_total{", sent),
        (pair.server.metrics(), "fsm_inbound_received_bytes_total{", received),
        (pair.server.metrics(), "fsm_inbound_sent_bytes_total{", sent),
    ] {
        let counted = |line: &str| line.starts_with(name) && line.ends_with(&format!(" {bytes}"));
        assert!(page.lines().any(counted), "{name} is not {bytes}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_is_a_line_at_its_end_with_the_bytes_that_it_carried() {
    let (app, _asked) = server1().await;
    let (pair, client, server) = pair(&Mesh::new(), app.address, Protocol::Http, logging);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nhost: store\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hellogoodbye");
    is_told(&pair, &client, &server, (0, 0));

    // The same in HTTP/2.
    let (response, mut stream) = connect(&pair).await.send_request(asking("/chat"), false).unwrap();
    let mut received = response.await.unwrap().into_body();
    stream.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let mut heard = Vec::new();
    while let Some(data) = next(&mut received).await {
        heard.extend_from_slice(&data.unwrap());
    }
    assert_eq!(heard, b"hellogoodbye");
    is_told(&pair, &client, &server, (5, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_connection_is_a_span_at_each_sidecar() {
    let mut collector = Collector::start().await;
    let app = app::listen(|mut stream| async move {
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.write_all(b"goodbye").await.unwrap();
    })
    .await;
    let change = |resources: Resources| resources.settings(|settings| settings.tracing = tracing(&collector));
    let (pair, client, server) = pair(&Mesh::new(), app.address, Protocol::Tcp, change);
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    let spans = collector.spans(2).await;
    let of = |kind: i32| spans.iter().find(|(_, span)| span.kind == kind).unwrap();
    let ((at_client, outbound), (at_server, inbound)) = (of(3), of(2));
    assert!(at_client.contains("buyer") && at_server.contains("store"), "{at_client}, {at_server}");
    assert_eq!((outbound.trace_id.len(), &outbound.trace_id), (16, &inbound.trace_id));
    assert_eq!((outbound.parent_span_id.len(), &inbound.parent_span_id), (0, &outbound.span_id));
    for (span, of_its_own) in [(outbound, "fsm.backend"), (inbound, CLIENT)] {
        assert_eq!(span.name, "tcp");
        let said = format!("{:?}", span.attributes);
        for part in ["fsm.bytes_received", "IntValue(5)", "fsm.bytes_sent", "IntValue(7)", of_its_own] {
            assert!(said.contains(part), "{part} is missing: {said}");
        }
        assert!(!said.contains("http."), "{said}");
    }
    // With the log off there are no lines.
    assert!(client.is_empty() && server.is_empty());
}
