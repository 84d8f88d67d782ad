//! Heads that nobody decides about: what they ask for is not certain.
//!
//! What a parser has let through may still mean one thing to a proxy and another to the application behind it. Such requests are
//! refused as RFC 9112 says, before any policy is looked at.

use std::fmt;

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, StatusCode, Version};

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// HTTP/1.1 must name the host (RFC 9112, section 3.2).
    NoHost,
    /// Only once (RFC 9112, section 3.2).
    SeveralHosts,
    /// It is a name or address and perhaps a port; users are not named (RFC 9110, section 4.2.4).
    Host,
    /// It is a path, a URL, or `*` for OPTIONS (RFC 9112, section 3.2), in ASCII.
    Target,
    /// A body comes in chunks or as it is: compression in transfer is not understood (RFC 9112, section 6.1).
    Coding,
}

impl Flaw {
    /// That of a request as its client sent it, or as the application will see it.
    pub fn of(parts: &Parts) -> Option<Self> {
        if !is_target(parts) {
            return Some(Self::Target);
        }
        if parts.uri.authority().is_some_and(names_user) {
            return Some(Self::Host);
        }
        let mut hosts = parts.headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next()) {
            (_, Some(_)) => return Some(Self::SeveralHosts),
            (None, None) if parts.version == Version::HTTP_11 && parts.uri.scheme().is_none() => {
                return Some(Self::NoHost);
            }
            // A client that has no name for what it calls sends an empty one.
            (Some(host), None) if !host.is_empty() && !is_host(host.as_bytes()) => return Some(Self::Host),
            _ => {}
        }
        let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => None,
            (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => None,
            _ => Some(Self::Coding),
        }
    }

    /// The HTTP status to answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

fn is_target(parts: &Parts) -> bool {
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let form = match (parts.uri.scheme_str(), parts.uri.authority()) {
        (Some("http" | "https"), Some(_)) => true,
        // A client of HTTP/2 may name the host without a scheme; in HTTP/1 this is the form of CONNECT.
        (None, Some(_)) => parts.version == Version::HTTP_2,
        (None, None) => path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS),
        _ => false,
    };
    form && path.is_ascii()
}

/// A name or address with perhaps a port.
fn is_host(text: &[u8]) -> bool {
    is_plain_host(text) || Authority::try_from(text).is_ok_and(|authority| !names_user(&authority))
}

/// What nearly every host is, told without a copy: letters, digits, dots and dashes, and perhaps a port.
fn is_plain_host(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
    let (name, port) = (&text[..end], text.get(end + 1..).unwrap_or_default());
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !name.is_empty() && name.iter().all(in_name) && port.len() <= 4 && port.iter().all(u8::is_ascii_digit)
}

fn names_user(authority: &Authority) -> bool {
    authority.as_str().contains('@')
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHost => "the request names no host: send one Host header",
            Self::SeveralHosts => "the request names its host more than once: send one Host header",
            Self::Host => "the request's host is not a name or address with perhaps a port: correct its Host header",
            Self::Target => {
                "the request's target is neither a path nor a URL: begin it with / and encode what is not ASCII"
            }
            Self::Coding => "the body's transfer coding is not understood: send it chunked or with a Content-Length",
        })
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn flaw(request: http::request::Builder) -> Option<Flaw> {
        Flaw::of(&request.body(()).unwrap().into_parts().0)
    }

    proptest! {
        #[test]
        fn a_plain_host_is_a_host(text in "[a-z0-9.-]{0,3}:?[0-9a:@]{0,5}") {
            let host = Authority::try_from(text.as_bytes()).is_ok_and(|authority| !names_user(&authority));
            prop_assert_eq!(is_host(text.as_bytes()), host);
        }
    }

    #[test]
    fn a_head_that_could_mean_two_things_is_refused() {
        let get = || Request::builder().header("host", "store");
        let cases = [
            (get(), None),
            (get().uri("http://store/a"), None),
            (get().uri("*").method("OPTIONS"), None),
            (get().header("transfer-encoding", "Chunked"), None),
            (Request::builder().uri("http://store/a"), None),
            (Request::builder().version(Version::HTTP_10), None),
            (Request::builder().version(Version::HTTP_2).uri("http://store/a"), None),
            (Request::builder().header("host", ""), None),
            (Request::builder().header("host", "[::1]:80"), None),
            (Request::builder().header("host", "my_store.shop:80"), None),
            (Request::builder(), Some(Flaw::NoHost)),
            (get().header("host", "store"), Some(Flaw::SeveralHosts)),
            (Request::builder().header("host", "user@store"), Some(Flaw::Host)),
            (Request::builder().header("host", "store/path"), Some(Flaw::Host)),
            (Request::builder().header("host", "sto re"), Some(Flaw::Host)),
            (get().uri("http://user:word@store/"), Some(Flaw::Host)),
            (get().uri("*"), Some(Flaw::Target)),
            (get().uri("store:80"), Some(Flaw::Target)),
            (get().uri("gopher://store/"), Some(Flaw::Target)),
            (get().uri("/ä"), Some(Flaw::Target)),
            (get().header("transfer-encoding", "gzip, chunked"), Some(Flaw::Coding)),
            (get().header("transfer-encoding", "chunked").header("transfer-encoding", "chunked"), Some(Flaw::Coding)),
        ];
        for (number, (request, expected)) in cases.into_iter().enumerate() {
            assert_eq!(flaw(request), expected, "case {number}");
        }
    }
}
