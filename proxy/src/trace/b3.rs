//! B3, as Zipkin and FSM's earlier proxies have it: `b3`, or `x-b3-traceid` and its siblings.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Joined, SpanName, hex, only};

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const STATE: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// What was said in B3, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct B3 {
    pub parent: Option<SpanName>,
    pub sampled: Option<bool>,
    debug: bool,
    single: bool,
    /// The trace's identifier has 64 bits only.
    short: bool,
}

/// The single header counts before the others.
pub fn read(headers: &HeaderMap) -> Option<B3> {
    single(headers).or_else(|| several(headers))
}

fn single(headers: &HeaderMap) -> Option<B3> {
    let text = only(headers, &SINGLE)?;
    let fields: Vec<&[u8]> = text.split(|byte| *byte == b'-').collect();
    let (trace, span, rest) = match fields.as_slice() {
        [state] => {
            let (sampled, debug) = state_of(state)?;
            return Some(B3 { parent: None, sampled: Some(sampled), debug, single: true, short: false });
        }
        [trace, span, rest @ ..] => (trace, span, rest),
        [] => return None,
    };
    let state = match rest {
        [] => None,
        [state] => Some(state_of(state)?),
        [state, parent] => {
            hex(parent, 16, true)?;
            Some(state_of(state)?)
        }
        _ => return None,
    };
    Some(B3 {
        parent: Some(name(trace, span)?),
        sampled: state.map(|(sampled, _)| sampled),
        debug: state.is_some_and(|(_, debug)| debug),
        single: true,
        short: trace.len() == 16,
    })
}

fn several(headers: &HeaderMap) -> Option<B3> {
    let debug = only(headers, &FLAGS) == Some(b"1");
    let sampled = match only(headers, &STATE) {
        _ if debug => Some(true),
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    let trace = only(headers, &TRACE);
    let parent = trace.zip(only(headers, &SPAN)).and_then(|(trace, span)| name(trace, span));
    let short = parent.is_some() && trace.is_some_and(|trace| trace.len() == 16);
    (parent.is_some() || sampled.is_some()).then_some(B3 { parent, sampled, debug, single: false, short })
}

fn state_of(text: &[u8]) -> Option<(bool, bool)> {
    match text {
        b"0" => Some((false, false)),
        b"1" => Some((true, false)),
        b"d" => Some((true, true)),
        _ => None,
    }
}

fn name(trace: &[u8], span: &[u8]) -> Option<SpanName> {
    let trace = hex(trace, 32, true).or_else(|| hex(trace, 16, true))?;
    Some(SpanName { trace, span: u64::try_from(hex(span, 16, true)?).ok()? })
}

impl B3 {
    /// As it came, with the new span in the place of the old one, which becomes its parent.
    pub fn write(&self, headers: &mut HeaderMap, joined: &Joined) {
        let digits = if self.short { 16 } else { 32 };
        let trace = format!("{:0digits$x}", joined.span.trace);
        let span = format!("{:016x}", joined.span.span);
        let parent = joined.parent.map(|parent| format!("{parent:016x}"));
        let state = match (self.debug, joined.sampled) {
            (true, _) => "d",
            (false, true) => "1",
            (false, false) => "0",
        };
        let mut set =
            |name: HeaderName, text: Option<String>| match text.and_then(|text| HeaderValue::try_from(text).ok()) {
                Some(value) => drop(headers.insert(name, value)),
                None => drop(headers.remove(name)),
            };
        if self.single {
            let parent = parent.map(|parent| format!("-{parent}")).unwrap_or_default();
            return set(SINGLE, Some(format!("{trace}-{span}-{state}{parent}")));
        }
        set(TRACE, Some(trace));
        set(SPAN, Some(span));
        set(PARENT, parent);
        // The flag for debugging says it by itself.
        set(STATE, (!self.debug).then(|| state.to_owned()));
    }
}
