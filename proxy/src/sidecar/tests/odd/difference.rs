//! What servers behind different proxies receive of the same bytes, and why it differs.

use super::draft::Case;
use super::exchange::Outcome;
use super::peers::Peer::{self, Envoy, Nginx};
use super::reference::Request;

/// Fields that proxies add, change or remove as they have to.
const OF_THE_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "content-length",
    "transfer-encoding",
    "te",
    "upgrade",
    "http2-settings",
    "proxy-connection",
    "expect",
    "x-forwarded-proto",
    "x-request-id",
    "x-envoy-expected-rq-timeout-ms",
];

/// Which changes make a difference from whom, and why. Sections are those of RFC 9112.
const REASONS: &[(&[Peer], &[&str], &str)] = &[
    (
        &[Nginx, Envoy],
        &["method in lower case", "method with odd letters", "unknown method", "long method", "length missing"],
        "9110, 9.1: any token is a method; they know some only (what follows a missing length is read as a method)",
    ),
    (
        &[Nginx, Envoy],
        &["length too small", "length with underscore", "chunked with underscore", "identity", "empty coding"],
        "what is left of the body is read as the method of the next request: they know some methods only",
    ),
    (
        &[Nginx, Envoy],
        &[
            "two spaces",
            "two spaces before version",
            "space after version",
            "tab instead of space",
            "CR in request line",
        ],
        "3: we take single spaces only; they make the line right",
    ),
    (&[Nginx], &["version 1.2", "version 1.10", "no version", "version 0.9"], "2.3: we know 1.0 and 1.1 only"),
    (&[Envoy], &["version 1.0"], "refuses it unless told otherwise"),
    (
        &[Nginx],
        &["absolute target of another host"],
        "3.2.2: the target's host counts; nginx is told to hand on the field",
    ),
    (&[Nginx, Envoy], &["absolute target with query only"], "the parser of URLs that we use does not take it"),
    (&[Nginx], &["absolute target with odd scheme"], "we are a proxy for http and https only"),
    (&[Nginx, Envoy], &["OPTIONS *"], "3.2.4: for the server as a whole; we hand it on, they don't"),
    (&[Nginx, Envoy], &["target with fragment"], "3.2: we remove it, nginx hands it on, Envoy refuses it"),
    (
        &[Nginx],
        &["target with encoded slash", "target with bad encoding"],
        "nginx decodes targets; we hand them on as they are",
    ),
    (&[Nginx, Envoy], &["target with braces"], "3986: not in a URI; they hand it on"),
    (&[Nginx], &["target with letters beyond ASCII"], "3986: not in a URI; nginx hands it on"),
    (&[Nginx], &["empty host"], "3.2: nginx refuses it; we hand it on, as clients without a name for the host send it"),
    (&[Nginx, Envoy], &["host with user", "absolute target with user"], "9110, 4.2.4: refused; they hand it on"),
    (&[Envoy], &["two hosts", "two hosts alike"], "3.2: must be refused; Envoy hands on a list"),
    (
        &[Nginx],
        &[
            "field without colon",
            "field without name",
            "parenthesis in name",
            "letters beyond ASCII in name",
            "underscore in name",
        ],
        "5.1: nginx ignores such fields; we refuse what is no token, and hand on what is one",
    ),
    (&[Nginx], &["DEL in value", "control character in value"], "9110, 5.5: invalid; nginx hands them on"),
    (
        &[Envoy],
        &["folded", "folded by tab", "chunked after fold", "CR in value"],
        "5.2: may be refused; Envoy makes it right",
    ),
    (
        &[Nginx, Envoy],
        &["one more length", "another length", "length before", "length on get", "one more chunked", "chunked before"],
        "6.1, 6.3: may be refused; we take two lengths that are the same as one, ignore a length beside chunks and close the connection then",
    ),
    (
        &[Nginx, Envoy],
        &["chunk too short", "chunk too long", "no CR after data", "trailer folded"],
        "7.1: invalid; they guess where the chunk ends",
    ),
    (
        &[Nginx],
        &["extension with LF", "no CR after size", "no CR in the end", "trailer without colon", "trailer with NUL"],
        "7.1: invalid; nginx does not look",
    ),
    (&[Envoy], &["connection names host"], "9110, 7.6.1: Host is not for the hop; Envoy refuses it, we ignore it"),
    (&[Nginx], &["connection names a field"], "9110, 7.6.1: must be removed; nginx hands it on"),
    (&[Nginx, Envoy], &["field of the mesh"], "the mesh's own fields cannot be set by applications"),
    (&[Nginx, Envoy], &["two cookies"], "9113, 8.2.3: joined, as on the way between the sidecars they may be apart"),
];

/// Changes that make a difference together only.
struct Together {
    peers: &'static [Peer],
    one: &'static [&'static str],
    other: &'static [&'static str],
    _why: &'static str,
}

const TOGETHER: &[Together] = &[
    Together {
        peers: &[Nginx],
        one: &["absolute target", "absolute target without path", "absolute target with https"],
        other: &["host with port", "host with odd port", "host in upper case"],
        _why: "3.2.2: the target's host counts; nginx is told to hand on the field",
    },
    Together {
        peers: &[Envoy],
        one: &["absolute target", "absolute target without path", "absolute target with https"],
        other: &["host with path", "host with space", "host with user", "host list", "empty host"],
        _why: "3.2: an invalid host must be refused; Envoy does not look where the target has one",
    },
    Together {
        peers: &[Nginx, Envoy],
        one: &["version 1.0"],
        other: &["no host"],
        _why: "3.2: a host is added, as the server is spoken to in HTTP/1.1",
    },
];

/// What the server received, as far as it matters to it.
fn received(outcome: &Outcome) -> Vec<Result<Request, &'static str>> {
    let seen = outcome.seen.iter().cloned();
    seen.map(|seen| {
        seen.map(|mut request| {
            request.version.clear();
            request.fields.retain(|(name, _)| !OF_THE_HOP.contains(&name.as_str()));
            request.fields.sort();
            request
        })
    })
    .collect()
}

/// Whether the servers received the same.
pub fn is_same(own: &Outcome, other: &Outcome) -> bool {
    received(own) == received(other)
}

/// Whether the changes explain that `peer` has handed on something else.
pub fn is_explained(peer: Peer, case: &Case) -> bool {
    let any = |changes: &[&str]| changes.iter().any(|change| case.changes.contains(change));
    REASONS.iter().any(|(peers, changes, _)| peers.contains(&peer) && any(changes))
        || TOGETHER.iter().any(|both| both.peers.contains(&peer) && any(both.one) && any(both.other))
}
