//! Clients that keep HTTP/2's rules and mean harm: the proxy stays there for others, and its memory stays its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fsm_proxy_config::proto::Protocol;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app::{self, describe};
use super::client::fetch;
use super::mesh::{Mesh, Pair};

pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;
/// `:method GET`, `:scheme http`, `:path /`, `:authority store`.
pub const GET: &[u8] = b"\x82\x86\x84\x01\x05store";
/// A peer that takes nothing more for so long has stopped reading, or has gone.
const STUCK: Duration = Duration::from_secs(1);

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(9 + payload.len());
    frame.put_uint(payload.len() as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame.freeze()
}

/// A connection on which the flood may begin.
pub async fn connected(pair: &Pair, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
    stream
}

/// Sends until the proxy takes no more, or all is sent; gives how many bytes it took.
async fn flood(stream: &mut TcpStream, frames: impl Iterator<Item = Bytes>) -> usize {
    let mut taken = 0;
    for frame in frames {
        match tokio::time::timeout(STUCK, stream.write_all(&frame)).await {
            Ok(Ok(())) => taken += frame.len(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    taken
}

pub async fn still_serves(pair: &Pair) {
    assert_eq!(fetch(pair.client.outbound(), "/books").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_given_up_at_once_leave_nothing_under_way() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Detect);
    let mut stream = connected(&pair, &[]).await;
    let frames = (0..20_000).flat_map(|number| {
        let id = 2 * number + 1;
        [frame(HEADERS, END_STREAM | END_HEADERS, id, GET), frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes())]
    });
    let (mut read, mut write) = stream.split();
    let mut ignored = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy(&mut read, &mut ignored) => {}
        () = async {
            for frame in frames {
                if write.write_all(&frame).await.is_err() {
                    break;
                }
            }
        } => {}
    }
    still_serves(&pair).await;
    drop(stream);
    let under_way = || pair.client.handle.context.drain.under_way() + pair.server.handle.context.drain.under_way();
    let ended = async {
        // One connection stays: the one between the two sidecars.
        while under_way() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("connections are still under way");
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Detect);
    let mut stream = connected(&pair, &[]).await;
    let begin = std::iter::once(frame(HEADERS, END_STREAM, 1, GET));
    let filler = vec![0; 16_000];
    let more = (0..2_000).map(|_| frame(CONTINUATION, 0, 1, &filler));
    let taken = flood(&mut stream, begin.chain(more)).await;
    assert!(taken < 16_000_000, "{taken} bytes of one head were taken");
    still_serves(&pair).await;
}

#[tokio::test]
async fn a_head_that_unpacks_to_a_multiple_of_itself_is_refused() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Detect);
    let mut stream = connected(&pair, &[]).await;
    let mut block = GET.to_vec();
    // One entry of 3,000 bytes for the dynamic table (RFC 7541, 6.2.1), then references to it (6.1) of a byte each.
    block.extend_from_slice(b"\x40\x01x\x7f\xb9\x16");
    block.extend_from_slice(&[b'v'; 3_000]);
    block.extend_from_slice(&[0x80 | 62; 10_000]);
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await.unwrap();
    still_serves(&pair).await;
    assert_eq!(app.connections(), 1, "the request that unpacks to 30 MB has reached the application");
}

#[tokio::test]
async fn pings_that_nobody_reads_the_answers_of_are_held_up() {
    let app = app::http1(describe).await;
    let pair = Mesh::new().pair(app.address, Protocol::Detect);
    let mut stream = connected(&pair, &[]).await;
    let many = std::iter::repeat_n(frame(PING, 0, 0, b"12345678"), 1_000).flatten().collect::<Bytes>();
    let taken = flood(&mut stream, std::iter::repeat_n(many, 10_000)).await;
    assert!(taken < 100_000_000, "{taken} bytes of pings were taken");
    still_serves(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_up_the_application() {
    const PIECE: usize = 64 * 1024;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let app = app::http1(move |_request| {
        let count = Arc::clone(&count);
        async move {
            let pieces = futures::stream::repeat_with(move || {
                count.fetch_add(PIECE, Ordering::SeqCst);
                Ok(Frame::data(Bytes::from(vec![b'x'; PIECE])))
            });
            Response::new(BodyExt::boxed(StreamBody::new(futures::StreamExt::take(pieces, 4_000))))
        }
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Detect);
    // SETTINGS_INITIAL_WINDOW_SIZE of 0: not a byte of a body may be sent.
    let mut two = connected(&pair, &[0, 4, 0, 0, 0, 0]).await;
    two.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, GET)).await.unwrap();
    let mut one = TcpStream::connect(pair.client.outbound()).await.unwrap();
    one.write_all(b"GET / HTTP/1.1\r\nhost: store\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    one.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let mut before = 0;
    loop {
        tokio::time::sleep(STUCK / 2).await;
        let now = sent.load(Ordering::SeqCst);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    assert!(before < 48 << 20, "{before} bytes of two responses that nobody reads are somewhere");
}
