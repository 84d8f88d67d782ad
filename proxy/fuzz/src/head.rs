//! Heads on their way between two sidecars: nothing that names a hop or the mesh arrives, and what arrives has no flaw that it did not have.
//!
//! The first line is the target, the others are fields.

#![no_main]

use fsm_proxy_config::{Flaw, head};
use http::{HeaderName, HeaderValue, Request, Uri, uri::Authority};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Ok(uri) = Uri::try_from(lines.next().unwrap_or_default()) else { return };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.uri = uri;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let name = HeaderName::from_bytes(&line[..colon]);
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&line[colon + 1..])) else { return };
        parts.headers.append(name, value);
    }
    if Flaw::of(&parts).is_some() {
        return;
    }
    let upgrades = head::hand_on(&mut parts);
    if !upgrades {
        head::into_http2(&mut parts, || Authority::from_static("10.0.0.1:80"));
    }
    assert_eq!(head::for_application(&mut parts), upgrades);
    assert_eq!(Flaw::of(&parts), None);
    for name in ["fsm-port", "fsm-http-version", "fsm-upgrade", "transfer-encoding", "keep-alive", "proxy-connection"] {
        assert!(!parts.headers.contains_key(name), "{name}");
    }
    assert_eq!(parts.headers.contains_key("connection"), upgrades);
});
