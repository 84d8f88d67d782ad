//! Clients that break the rules of HTTP/2 are told so, and others do not notice.

use fsm_proxy_config::proto::Protocol;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::app::{self, describe};
use super::floods::{END_HEADERS, END_STREAM, GET, HEADERS, RST_STREAM, SETTINGS, connected, frame, still_serves};
use super::mesh::{Mesh, Pair};
use crate::upstream::window;

const DATA: u8 = 0;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;

/// Reads frames up to one of this kind, and gives its payload. None: the connection ended without.
async fn until(stream: &mut TcpStream, kind: u8) -> Option<Vec<u8>> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        if head[3] == kind {
            return Some(payload);
        }
    }
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap())
}

async fn pair() -> Pair {
    let app = app::http1(describe).await;
    Mesh::new().pair(app.address, Protocol::Http)
}

/// RFC 9113, sections 6.5.2, 6.9, 6.9.1 and 4.2.
#[tokio::test]
async fn windows_and_settings_out_of_bounds_end_the_connection() {
    let pair = pair().await;
    let begun = frame(HEADERS, END_HEADERS, 1, GET);
    for (what, frames, expected) in [
        // The RFC has codes of their own for the first and the fourth; the connection ends all the same.
        ("a window beyond 2^31-1", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), PROTOCOL_ERROR),
        ("a frame size below 2^14", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), PROTOCOL_ERROR),
        ("push neither on nor off", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), PROTOCOL_ERROR),
        ("settings cut short", frame(SETTINGS, 0, 0, &[0, 4, 0]), PROTOCOL_ERROR),
        ("an increment of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), FLOW_CONTROL_ERROR),
        ("a frame that is too long", frame(DATA, 0, 1, &vec![0; 20_000]), FRAME_SIZE_ERROR),
        ("data without a request", frame(DATA, 0, 5, b"x"), PROTOCOL_ERROR),
    ] {
        let mut stream = connected(&pair, &[]).await;
        stream.write_all(&begun).await.unwrap();
        stream.write_all(&frames).await.unwrap();
        let said = until(&mut stream, GOAWAY).await.unwrap_or_else(|| panic!("{what}: no GOAWAY"));
        assert_eq!(u32::from_be_bytes(said[4..8].try_into().unwrap()), expected, "{what}");
    }
    still_serves(&pair).await;
}

/// RFC 9113, section 5.1.2: the proxy takes so many streams of a client at once, and no more.
#[tokio::test]
async fn a_stream_too_many_is_refused_and_the_others_stay() {
    let app = app::grpc_echo().await;
    let pair = Mesh::new().pair(app.address, Protocol::Http2);
    let mut stream = connected(&pair, &[]).await;
    let settings = until(&mut stream, SETTINGS).await.unwrap();
    let most = settings.chunks(6).find(|one| one[..2] == [0, 3]).map(code).unwrap();
    assert_eq!(most, window::STREAMS);
    // Their bodies do not end, so none of them does.
    for number in 0..=most {
        stream.write_all(&frame(HEADERS, END_HEADERS, 2 * number + 1, GET)).await.unwrap();
    }
    assert_eq!(code(&until(&mut stream, RST_STREAM).await.unwrap()), REFUSED_STREAM);
    stream.write_all(&frame(DATA, END_STREAM, 1, b"echo")).await.unwrap();
    assert_eq!(until(&mut stream, DATA).await.unwrap(), b"echo");
}
