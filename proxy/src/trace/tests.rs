use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn parent() -> SpanName {
    SpanName { trace: u128::from_str_radix(TRACE, 16).unwrap(), span: u64::from_str_radix(SPAN, 16).unwrap() }
}

#[test]
fn a_traceparent_is_read_as_the_recommendation_says() {
    let sampled = |text: &str| Heard::of(&headers(&[("traceparent", text)])).sampled;
    let of = |version: &str, flags: &str| format!("{version}-{TRACE}-{SPAN}-{flags}");
    assert_eq!(Heard::of(&headers(&[("traceparent", &of("00", "01"))])).parent, Some(parent()));
    assert_eq!(sampled(&of("00", "01")), Some(true));
    assert_eq!(sampled(&of("00", "00")), Some(false));
    assert_eq!(sampled(&of("00", "fe")), Some(false));
    assert_eq!(sampled(&of("cc", "03")), Some(true));
    assert_eq!(sampled(&of("cc", "01-what-the-future-brings")), Some(true));
    for malformed in [
        String::new(),
        of("ff", "01"),
        of("0", "01"),
        of("00", "1"),
        of("00", "0g"),
        of("00", "01-more"),
        of("cc", "01.more"),
        of("cc", "011"),
        of("00", "01").to_uppercase(),
        of("0x", "01"),
        of("00", "01").replace('-', "_"),
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
        format!("00-+{}-{SPAN}-01", &TRACE[1..]),
    ] {
        assert_eq!(Heard::of(&headers(&[("traceparent", &malformed)])), Heard::default(), "{malformed}");
    }
    let twice = headers(&[("traceparent", &of("00", "01")), ("traceparent", &of("00", "01"))]);
    assert_eq!(Heard::of(&twice), Heard::default());
}

#[test]
fn b3_is_read_in_both_forms() {
    for (lines, expected, sampled) in [
        (&[("b3", format!("{TRACE}-{SPAN}-1-{SPAN}"))][..], true, Some(true)),
        (&[("b3", format!("{TRACE}-{SPAN}-d"))], true, Some(true)),
        (&[("b3", format!("{TRACE}-{SPAN}-0"))], true, Some(false)),
        (&[("b3", format!("{TRACE}-{SPAN}"))], true, None),
        (&[("b3", "0".to_owned())], false, Some(false)),
        (&[("b3", "1".to_owned())], false, Some(true)),
        (&[("b3", format!("{TRACE}-{SPAN}-2"))], false, None),
        (&[("b3", format!("{TRACE}-{SPAN}-1-{SPAN}-1"))], false, None),
        (&[("b3", format!("{TRACE}-{TRACE}-1"))], false, None),
        (&[("x-b3-traceid", TRACE.to_owned()), ("x-b3-spanid", SPAN.to_owned())], true, None),
        (
            &[("x-b3-traceid", TRACE.to_owned()), ("x-b3-spanid", SPAN.to_owned()), ("x-b3-sampled", "0".to_owned())],
            true,
            Some(false),
        ),
        (
            &[("x-b3-traceid", TRACE.to_owned()), ("x-b3-spanid", SPAN.to_owned()), ("x-b3-flags", "1".to_owned())],
            true,
            Some(true),
        ),
        (&[("x-b3-sampled", "0".to_owned())], false, Some(false)),
        (&[("x-b3-traceid", TRACE.to_owned())], false, None),
    ] {
        let lines: Vec<(&'static str, &str)> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let heard = Heard::of(&headers(&lines));
        assert_eq!((heard.parent, heard.sampled), (expected.then(parent), sampled), "{lines:?}");
    }
}

#[test]
fn a_trace_goes_on_in_the_headers_that_it_came_in() {
    let short = &TRACE[16..];
    let mut lines = headers(&[("b3", &format!("{short}-{SPAN}-d")), ("tracestate", "of=nobody")]);
    let joined = Heard::of(&lines).join(&mut lines, Share::NONE).unwrap();
    assert!(joined.sampled);
    assert_eq!(lines["b3"], format!("{short}-{:016x}-d-{SPAN}", joined.span.span));
    assert_eq!(lines["traceparent"], format!("00-{:0>32}-{:016x}-01", short, joined.span.span));
    assert!(!lines.contains_key("tracestate"));

    let mut lines = headers(&[
        ("traceparent", &format!("00-{TRACE}-{SPAN}-01")),
        ("tracestate", "vendor=1"),
        ("x-b3-traceid", TRACE),
        ("x-b3-spanid", "1234567890123456"),
        ("b3", "f00"),
    ]);
    let joined = Heard::of(&lines).join(&mut lines, Share::NONE).unwrap();
    assert_eq!((joined.span.trace, joined.parent), (parent().trace, Some(parent().span)));
    assert_eq!(
        (&lines["tracestate"], &lines["x-b3-parentspanid"]),
        (&HeaderValue::from_static("vendor=1"), &HeaderValue::from_static(SPAN))
    );
    assert_eq!(
        (&lines["x-b3-sampled"], &lines["b3"]),
        (&HeaderValue::from_static("1"), &HeaderValue::from_static("f00"))
    );
}

#[test]
fn who_wants_no_trace_gets_none() {
    for lines in [
        headers(&[("traceparent", &format!("00-{TRACE}-{SPAN}-00")), ("tracestate", "a=b")]),
        headers(&[("b3", "0")]),
        headers(&[("x-b3-sampled", "0")]),
        headers(&[("b3", &format!("{TRACE}-{SPAN}-0"))]),
    ] {
        let mut after = lines.clone();
        let joined = Heard::of(&lines).join(&mut after, Share::ALL);
        assert!(joined.is_none_or(|joined| !joined.sampled));
        assert_eq!(after, lines);
    }
}

#[test]
fn a_trace_that_begins_here_is_sampled_as_configured_and_whoever_comes_next_is_told() {
    for (share, flags) in [(Share::ALL, "01"), (Share::NONE, "00")] {
        let mut lines = headers(&[("traceparent", "garbage"), ("tracestate", "a=b")]);
        let joined = Heard::of(&lines).join(&mut lines, share).unwrap();
        assert_eq!((joined.parent, joined.sampled), (None, flags == "01"));
        assert!(lines["traceparent"].to_str().unwrap().ends_with(flags));
        assert!(!lines.contains_key("tracestate"));
        // Another proxy does not decide again.
        let next = Heard::of(&lines).join(&mut lines, Share::ALL).unwrap();
        assert_eq!((next.sampled, next.parent), (joined.sampled, Some(joined.span.span)));
    }
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let well_formed =
        (any::<u8>(), any::<u128>(), any::<u64>(), any::<u8>()).prop_map(|(version, trace, span, flags)| {
            format!("{version:02x}-{trace:032x}-{span:016x}-{flags:02x}").into_bytes()
        });
    let b3 = (any::<u128>(), any::<u64>(), "[01dx]")
        .prop_map(|(trace, span, state)| format!("{trace:032x}-{span:016x}-{state}").into_bytes());
    prop_oneof![
        well_formed,
        b3,
        "[0-9a-f-]{0,60}".prop_map(String::into_bytes),
        prop::collection::vec(32..=255_u8, 0..70)
    ]
}

proptest! {
    #[test]
    fn whatever_comes_what_is_handed_on_is_well_formed_and_of_the_same_trace(
        lines in prop::collection::vec((0..8_usize, value()), 0..6),
        share in 0..=1_000_000_u32,
    ) {
        const NAMES: [&str; 8] =
            ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled", "x-b3-flags", "x-b3-parentspanid"];
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(HeaderName::from_static(NAMES[name]), value);
            }
        }
        let (before, heard) = (headers.clone(), Heard::of(&headers));
        let Some(joined) = heard.join(&mut headers, Share::per_million(share)) else {
            prop_assert_eq!(headers, before);
            return Ok(());
        };
        prop_assert!(heard.parent.is_none_or(|parent| parent.trace == joined.span.trace && Some(parent.span) == joined.parent));
        prop_assert!(heard.sampled.is_none_or(|sampled| sampled == joined.sampled));
        if joined.sampled {
            let next = Heard::of(&headers);
            prop_assert_eq!((next.parent, next.sampled), (Some(joined.span), Some(true)));
            if heard.b3.is_some() {
                prop_assert_eq!(b3::read(&headers).and_then(|b3| b3.parent), Some(joined.span));
            }
        }
    }
}
