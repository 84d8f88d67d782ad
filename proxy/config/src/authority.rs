//! The Host header and `:authority` (RFC 9110 section 7.2): a host, and perhaps a port.

use std::borrow::Cow;

/// The host in lower case, without brackets and final dot, and the port if there is one.
pub(crate) fn parse(text: &str) -> Option<(Cow<'_, str>, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        // The colon of an IPv6 address in brackets, or of one without a port.
        Some((_, tail)) if tail.contains(']') => (text, None),
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    let lower = !host.bytes().any(|byte| byte.is_ascii_uppercase());
    Some((if lower { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) }, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_told_apart() {
        for (text, expected) in [
            ("bookstore", Some(("bookstore", None))),
            ("Bookstore.NS:14001", Some(("bookstore.ns", Some(14001)))),
            ("bookstore.ns.svc.cluster.local.:80", Some(("bookstore.ns.svc.cluster.local", Some(80)))),
            ("[fd00::1]:80", Some(("fd00::1", Some(80)))),
            ("[fd00::1]", Some(("fd00::1", None))),
            ("bookstore:port", None),
            ("bookstore:99999", None),
            (":80", None),
            ("", None),
        ] {
            let parsed = parse(text);
            assert_eq!(parsed.as_ref().map(|(host, port)| (&**host, *port)), expected, "{text}");
        }
    }
}
