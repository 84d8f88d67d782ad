//! What a proxy must change in a message's head (RFC 9110, section 7.6), and the mesh's own headers.
//!
//! Policies judge heads, so what becomes of a head on its way is part of the decision: the data path and `fsm replay request` take
//! it through the same functions.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Uri, Version};

/// Between proxies: the port of the application that a request is for.
pub const FSM_PORT: HeaderName = HeaderName::from_static("fsm-port");
/// Between proxies: the HTTP version that the client speaks (`1` or `2`), so that the application is spoken to alike.
pub const FSM_HTTP_VERSION: HeaderName = HeaderName::from_static("fsm-http-version");
/// Between proxies, on a CONNECT: the tunnel carries one HTTP/1.1 exchange that asks for an upgrade, and is judged by
/// its request, not as an opaque connection.
pub const FSM_UPGRADE: HeaderName = HeaderName::from_static("fsm-upgrade");
/// On replies that the proxy made: why, as one of the words of `RefusalKind` or of the proxy's own failures.
pub const FSM_DENIED: HeaderName = HeaderName::from_static("fsm-denied");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The protocol that a request asks to switch to, if it is one that the mesh carries.
///
/// HTTP/2 is not: what follows such an upgrade would be requests that nobody judges. Without the offer the client
/// stays with HTTP/1.1, as RFC 9110 allows.
pub fn upgrade_of(parts: &Parts) -> Option<&HeaderValue> {
    let asks = || {
        parts.headers.get_all(CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|names| names.split(',').any(|name| name.trim().eq_ignore_ascii_case("upgrade")))
        })
    };
    let protocol = parts.headers.get(UPGRADE)?;
    let is_http2 = protocol.to_str().is_ok_and(|names| names.split(',').any(|name| name.trim().starts_with("h2")));
    (parts.version == Version::HTTP_11 && !is_http2 && asks()).then_some(protocol)
}

/// Removes what belongs to the connection that the message came on, and not to the message.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|names| names.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            // Host and length are nobody's to take away: they say whom the message is for, and where it ends.
            if ![TE, HOST, CONTENT_LENGTH].contains(&name) {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    let names = [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS, PROXY_AUTHENTICATE];
    // Most messages have none of them, and few fields: to look at these takes less than to look for those.
    if headers.keys().any(|name| names.contains(name)) {
        if headers.contains_key(TRANSFER_ENCODING) {
            // The coding says where the body ends, and a length beside it may be wrong (RFC 9112, section 6.3).
            headers.remove(CONTENT_LENGTH);
        }
        for name in names {
            headers.remove(name);
        }
    }
    keep_only_trailers(headers);
}

/// As [`strip_hop_by_hop`], but keeps what the switch to another protocol needs, if `upgrades`.
pub fn strip_but_upgrade(headers: &mut HeaderMap, upgrades: bool) {
    let protocol = headers.get(UPGRADE).filter(|_| upgrades).cloned();
    strip_hop_by_hop(headers);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Removes from trailers what says how a message is framed or where it goes: it is known by then (RFC 9110, section 6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    strip_internal(trailers);
    for name in [CONTENT_LENGTH, HOST, TE] {
        trailers.remove(name);
    }
}

/// Removes the mesh's own headers, which no application may set.
pub fn strip_internal(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().starts_with("fsm-")) {
        for name in [FSM_PORT, FSM_HTTP_VERSION, FSM_UPGRADE] {
            headers.remove(name);
        }
    }
}

/// TE says nothing but "trailers" between proxies, if it is there (RFC 9113, section 8.2.2); it may have come in several lines.
fn keep_only_trailers(headers: &mut HeaderMap) {
    let mut values = headers.get_all(TE).iter();
    match (values.next(), values.next()) {
        (None, _) => return,
        (Some(te), None) if te == "trailers" => return,
        _ => {}
    }
    let said = headers.get_all(TE).iter().filter_map(|te| te.to_str().ok());
    let trailers = said.flat_map(|te| te.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// What a proxy removes from a request before it hands it on; gives whether the request asks to switch to another protocol.
pub fn hand_on(parts: &mut Parts) -> bool {
    let upgrades = upgrade_of(parts).is_some();
    strip_but_upgrade(&mut parts.headers, upgrades);
    strip_internal(&mut parts.headers);
    if parts.headers.get(EXPECT).is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        // The proxy lets the client go on by itself, and whoever is next has no more to say about it.
        parts.headers.remove(EXPECT);
    }
    upgrades
}

/// Gives a request from another proxy the head that the application will see, Host included: that head is the one that is judged.
/// Gives whether the request asks to switch to another protocol.
pub fn for_application(parts: &mut Parts) -> bool {
    let upgrades = hand_on(parts);
    into_http1(parts);
    upgrades
}

/// The host that a request is for, as sent: `:authority`, the authority of an absolute target, or the Host header.
pub fn authority_of(parts: &Parts) -> &str {
    match parts.uri.authority() {
        Some(authority) => authority.as_str(),
        None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    }
}

/// Path and query, as sent.
pub fn path_of(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// Whether the body is of gRPC, which is spoken over HTTP/2 only.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Gives the head the form of HTTP/2: absolute target, no Host (RFC 9113, section 8.3.1).
///
/// A Host that is no valid authority stays as a header, and `fallback` is the authority.
pub fn into_http2(parts: &mut Parts, fallback: impl FnOnce() -> Authority) {
    parts.version = Version::HTTP_2;
    if parts.uri.authority().is_some() && parts.uri.scheme().is_some() {
        parts.headers.remove(HOST);
        return;
    }
    let named = parts
        .uri
        .authority()
        .cloned()
        .or_else(|| parts.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok()));
    let authority = match named {
        Some(authority) => {
            parts.headers.remove(HOST);
            authority
        }
        None => fallback(),
    };
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority);
    uri.path_and_query = Some(path);
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
}

/// Gives the head the form of HTTP/1.1: target without host, Host header, one Cookie line.
pub fn into_http1(parts: &mut Parts) {
    parts.version = Version::HTTP_11;
    if let Some(authority) = parts.uri.authority()
        && !parts.headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
    join_cookies(&mut parts.headers);
}

/// HTTP/2 may split cookies over several fields (RFC 9113, section 8.2.3); HTTP/1.1 may not.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

/// Whether a request may be sent a second time when nobody knows whether the first one arrived (RFC 9110, 9.2.1).
pub fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_belongs_to_the_connection_is_removed() {
        let mut head = parts(
            Request::builder()
                .header("connection", "close, X-Private, te, Host, content-length")
                .header("host", "store")
                .header("content-length", "0")
                .header("x-private", "1")
                .header("keep-alive", "timeout=5")
                .header("te", "trailers, deflate")
                .header("x-kept", "2"),
        );
        strip_hop_by_hop(&mut head.headers);
        let mut left: Vec<(&str, &[u8])> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        left.sort_unstable();
        assert_eq!(left, [("content-length", &b"0"[..]), ("host", b"store"), ("te", b"trailers"), ("x-kept", b"2")]);
    }

    /// A response with both came to nothing: the body had another length than HTTP/2 was told.
    #[test]
    fn a_length_beside_a_transfer_coding_is_removed() {
        let mut head = parts(Request::builder().header("content-length", "9").header("transfer-encoding", "chunked"));
        strip_hop_by_hop(&mut head.headers);
        assert!(head.headers.is_empty(), "{:?}", head.headers);
    }

    /// A request with the lines "te: trailers" and "te: 1" came back as 502: HTTP/2 had refused the second.
    #[test]
    fn te_says_trailers_or_nothing() {
        for (lines, left) in [
            (&["trailers"][..], &["trailers"][..]),
            (&["trailers", "1"], &["trailers"]),
            (&["1", "deflate, Trailers"], &["trailers"]),
            (&["trailers", "trailers"], &["trailers"]),
            (&["deflate", "no-trailers"], &[]),
            (&[], &[]),
        ] {
            let mut head = parts(lines.iter().fold(Request::builder(), |request, line| request.header("te", *line)));
            strip_hop_by_hop(&mut head.headers);
            assert_eq!(head.headers.get_all("te").iter().collect::<Vec<_>>(), left, "{lines:?}");
        }
    }

    #[test]
    fn an_upgrade_to_http2_is_not_carried() {
        let websocket = parts(Request::builder().header("connection", "Upgrade").header("upgrade", "websocket"));
        assert_eq!(upgrade_of(&websocket).unwrap(), "websocket");
        let http2 = parts(
            Request::builder()
                .header("connection", "Upgrade, HTTP2-Settings")
                .header("upgrade", "h2c")
                .header("http2-settings", "AAMAAABkAAQAAP__"),
        );
        assert_eq!(upgrade_of(&http2), None);
        let without_connection = parts(Request::builder().header("upgrade", "websocket"));
        assert_eq!(upgrade_of(&without_connection), None);
    }

    #[test]
    fn a_head_keeps_host_and_path_from_http1_to_http2_and_back() {
        let fallback = Authority::from_static("10.0.0.1:80");
        for (target, host, authority) in [
            ("/a?b=c", Some("shop:8080"), "shop:8080"),
            ("/", None, "10.0.0.1:80"),
            ("/", Some("not a host"), "10.0.0.1:80"),
            ("*", Some("shop"), "shop"),
        ] {
            let mut request = Request::builder().uri(target);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let mut head = parts(request);
            into_http2(&mut head, || fallback.clone());
            assert_eq!(head.uri.authority().unwrap(), authority);
            into_http1(&mut head);
            assert_eq!(head.uri.to_string(), target);
            assert_eq!(head.headers[HOST], host.unwrap_or(authority));
        }
    }

    #[test]
    fn cookies_are_joined_for_http1() {
        let mut head = parts(Request::builder().uri("http://shop/").header("cookie", "a=1").header("cookie", "b=2"));
        into_http1(&mut head);
        assert_eq!(head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
