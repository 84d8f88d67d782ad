//! Which protocol a connection speaks, from its first bytes.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What the first bytes of a connection show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// A request line of HTTP/1.0 or HTTP/1.1. CONNECT is not counted: what follows it is another protocol.
    Http1,
    /// The connection preface of HTTP/2 (RFC 9113, section 3.4), prior knowledge.
    Http2,
    /// A TLS ClientHello.
    Tls,
    /// Anything else, or nothing until the time-out.
    Opaque,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const LONGEST_METHOD: usize = 20;
/// A request line that is longer than this counts as HTTP without having been seen to its end.
const LONGEST_REQUEST_LINE: usize = 8 * 1024;

/// The protocol of a connection that begins with `bytes`; none if more bytes are needed to say.
///
/// An answer never changes when more bytes follow.
pub fn classify(bytes: &[u8]) -> Option<Sniffed> {
    match bytes.first()? {
        0x16 => classify_tls(bytes),
        b'P' if HTTP2_PREFACE.starts_with(&bytes[..bytes.len().min(HTTP2_PREFACE.len())]) => {
            if bytes.len() >= HTTP2_PREFACE.len() { Some(Sniffed::Http2) } else { None }
        }
        _ => classify_http1(bytes),
    }
}

/// A handshake record (RFC 8446, section 5.1) that carries a ClientHello.
fn classify_tls(bytes: &[u8]) -> Option<Sniffed> {
    let is_record = bytes.get(1).is_none_or(|major| *major == 3) && bytes.get(2).is_none_or(|minor| *minor <= 4);
    match bytes.get(5) {
        _ if !is_record => Some(Sniffed::Opaque),
        Some(1) => Some(Sniffed::Tls),
        Some(_) => Some(Sniffed::Opaque),
        None => None,
    }
}

/// A request line (RFC 9112, section 3). It is read to its end, because other protocols begin with upper-case words too.
fn classify_http1(bytes: &[u8]) -> Option<Sniffed> {
    let method_len = bytes.iter().position(|byte| !(byte.is_ascii_uppercase() || *byte == b'-')).unwrap_or(bytes.len());
    if method_len == 0 || method_len > LONGEST_METHOD {
        return Some(Sniffed::Opaque);
    }
    let (method, rest) = bytes.split_at(method_len);
    match rest {
        [] | [b' '] => return None,
        [b' ', b'/' | b'*' | b'h' | b'H', ..] if method != b"CONNECT" => {}
        _ => return Some(Sniffed::Opaque),
    }
    let line = match rest.iter().position(|byte| *byte < b' ' || *byte == 0x7f) {
        None if rest.len() > LONGEST_REQUEST_LINE => return Some(Sniffed::Http1),
        None => return None,
        Some(end) if end > LONGEST_REQUEST_LINE => return Some(Sniffed::Http1),
        Some(end) => match &rest[end..] {
            [b'\r', b'\n', ..] | [b'\n', ..] => &rest[..end],
            [b'\r'] => return None,
            _ => return Some(Sniffed::Opaque),
        },
    };
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
        Some(Sniffed::Http1)
    } else {
        Some(Sniffed::Opaque)
    }
}

/// Reads the first bytes of a connection until they tell the protocol, the peer stops sending or `timeout` passes.
///
/// The bytes are returned too: whoever serves the connection begins with them.
pub async fn sniff<T: AsyncRead + Unpin>(stream: &mut T, timeout: Option<Duration>) -> io::Result<(Sniffed, Bytes)> {
    let mut bytes = BytesMut::with_capacity(1024);
    let read = async {
        loop {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok::<_, io::Error>(Sniffed::Opaque);
            }
            if let Some(sniffed) = classify(&bytes) {
                return Ok(sniffed);
            }
        }
    };
    let sniffed = match timeout {
        None => read.await?,
        Some(timeout) => match tokio::time::timeout(timeout, read).await {
            Ok(sniffed) => sniffed?,
            Err(_elapsed) => Sniffed::Opaque,
        },
    };
    Ok((sniffed, bytes.freeze()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        let cases: [(&[u8], Option<Sniffed>); 22] = [
            (b"", None),
            (b"G", None),
            (b"GET ", None),
            (b"GET / HTTP/1.1", None),
            (b"GET / HTTP/1.1\r", None),
            (b"GET / HTTP/1.1\r\n", Some(Sniffed::Http1)),
            (b"GET / HTTP/1.0\nHost", Some(Sniffed::Http1)),
            (b"PROPFIND /a%20b?c=d HTTP/1.1\r\n", Some(Sniffed::Http1)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(Sniffed::Http1)),
            (b"GET http://example.com/ HTTP/1.1\r\n", Some(Sniffed::Http1)),
            (b"POST /x HTTP/1.1\r\n", Some(Sniffed::Http1)),
            (b"CONNECT example.com:443 HTTP/1.1\r\n", Some(Sniffed::Opaque)),
            (b"GET /key\r\n", Some(Sniffed::Opaque)),
            (b"GET key\r\n", Some(Sniffed::Opaque)),
            (b"EHLO mail.example.com\r\n", Some(Sniffed::Opaque)),
            (b"PRI * HTTP/2.0\r\n\r\nSM", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore", Some(Sniffed::Http2)),
            (b"PRI * HTTP/2.0\r\nHost: x\r\n", Some(Sniffed::Opaque)),
            (b"\x16\x03\x01\x02", None),
            (b"\x16\x03\x01\x02\x00\x01\xfc", Some(Sniffed::Tls)),
            (b"\x16\x03\x01\x02\x00\x02", Some(Sniffed::Opaque)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Sniffed::Opaque)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(classify(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_request_line_without_end_counts_as_http() {
        let mut line = b"GET /".to_vec();
        line.resize(LONGEST_REQUEST_LINE + 100, b'a');
        assert_eq!(classify(&line), Some(Sniffed::Http1));
    }

    /// First bytes as clients send them, cut and continued anywhere.
    fn beginnings() -> impl Strategy<Value = Vec<u8>> {
        let line = "[A-Z-]{0,22} {0,2}[/*hx]?[ -~]{0,40}( HTTP/[12]\\.[01])?(\r\n|\n|\r|)[ -~]{0,8}";
        prop_oneof![
            line.prop_map(String::into_bytes),
            (0..=HTTP2_PREFACE.len(), any::<Vec<u8>>()).prop_map(|(cut, tail)| [
                &HTTP2_PREFACE[..cut],
                tail.as_slice()
            ]
            .concat()),
            any::<Vec<u8>>().prop_map(|tail| [&[0x16, 3, 1], tail.as_slice()].concat()),
            any::<Vec<u8>>(),
        ]
    }

    proptest! {
        #[test]
        fn an_answer_never_changes_when_more_bytes_follow(bytes in beginnings()) {
            let mut answer = None;
            for len in 0..=bytes.len() {
                let now = classify(&bytes[..len]);
                prop_assert!(answer.is_none() || answer == now, "{answer:?} became {now:?} at {len}");
                answer = now;
            }
        }

        #[test]
        fn every_request_line_is_http(method in "[A-Z]{1,20}", path in "/[!-~]{0,60}", minor in 0..=1) {
            prop_assume!(method != "CONNECT");
            let line = format!("{method} {path} HTTP/1.{minor}\r\n");
            prop_assert_eq!(classify(line.as_bytes()), Some(Sniffed::Http1));
            prop_assert_eq!(classify(&line.as_bytes()[..line.len() - 1]), None);
        }
    }

    #[tokio::test]
    async fn a_silent_client_is_opaque_after_the_time_out_and_its_bytes_are_kept() {
        let (mut client, mut server) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET /").await.unwrap();
        let (sniffed, bytes) = sniff(&mut server, Some(Duration::from_millis(10))).await.unwrap();
        assert_eq!((sniffed, &bytes[..]), (Sniffed::Opaque, &b"GET /"[..]));
    }

    #[tokio::test]
    async fn a_client_that_closes_early_is_opaque() {
        let (mut client, mut server) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GE").await.unwrap();
        drop(client);
        let (sniffed, bytes) = sniff(&mut server, None).await.unwrap();
        assert_eq!((sniffed, &bytes[..]), (Sniffed::Opaque, &b"GE"[..]));
    }
}
