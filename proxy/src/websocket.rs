//! The handshake of WebSockets in HTTP/1.1 (RFC 6455, section 4), for the sides that have none: in HTTP/2 there are neither key
//! nor answer.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderValue, UPGRADE};

/// What `Upgrade` and `:protocol` say.
pub const PROTOCOL: &str = "websocket";
/// What every server appends to the key (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key of our own. It need not be secret: it shows that the server knows the protocol.
pub fn key() -> HeaderValue {
    value(&fastrand::u128(..).to_be_bytes())
}

/// How a server answers `key`.
pub fn accept(key: &HeaderValue) -> HeaderValue {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(GUID);
    value(digest.finish().as_ref())
}

/// Whether a request that asks to switch asks for a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}

fn value(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(STANDARD.encode(bytes)).expect("base64 has only letters that a header may have")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_that_of_the_specification() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(STANDARD.decode(super::key()).unwrap().len(), 16);
    }
}
