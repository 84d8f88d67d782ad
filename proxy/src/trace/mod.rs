//! The trace that a request belongs to, as its headers say: W3C Trace Context (`traceparent`, `tracestate`), and B3 in one header or
//! in several.
//!
//! A trace goes on under the identifiers that it came with. Where both kinds of headers are there, W3C's count. What
//! is malformed counts as not there, and a `tracestate` without a valid `traceparent` is removed when the proxy begins a trace of its
//! own (Trace Context, sections 3.3 and 4.3). A caller that decided about sampling is obeyed; if it decided
//! against it, its headers stay as they are, as this proxy adds no span.

mod b3;
mod w3c;

use fsm_proxy_config::Share;
use http::{HeaderMap, HeaderName};

use b3::B3;

/// The names of the headers.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A span, as it is named in headers. Neither number is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanName {
    pub trace: u128,
    pub span: u64,
}

/// What the headers of a request say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The caller's span.
    pub parent: Option<SpanName>,
    /// The caller's decision; none: it left that to others.
    pub sampled: Option<bool>,
    w3c: bool,
    /// How B3 was written, if the trace came in it too.
    b3: Option<B3>,
}

/// The place of a request's span in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    pub span: SpanName,
    /// The span of the caller; none: the trace begins here.
    pub parent: Option<u64>,
    pub sampled: bool,
}

impl SpanName {
    /// A number that is uniform over all of `u64`, and the same wherever the trace goes. Of the identifier only the last 7 bytes are sure
    /// to be random (Trace Context level 2, section 2.2.2).
    pub fn draw(&self) -> u64 {
        (self.trace << 8) as u64
    }
}

impl Heard {
    /// Reads the headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let w3c = w3c::read(headers);
        let b3 = b3::read(headers);
        match (w3c, b3) {
            (Some((parent, sampled)), b3) => Self {
                parent: Some(parent),
                sampled: Some(sampled),
                w3c: true,
                // Those of another trace are somebody else's.
                b3: b3.filter(|b3| b3.parent.is_some_and(|other| other.trace == parent.trace)),
            },
            (None, Some(b3)) => Self { parent: b3.parent, sampled: b3.sampled, w3c: false, b3: Some(b3) },
            (None, None) => Self::default(),
        }
    }

    /// Takes a place in the trace, or begins one of which `share` is sampled, and writes into `headers` what is handed on. None: the caller
    /// wants no trace.
    pub fn join(&self, headers: &mut HeaderMap, share: Share) -> Option<Joined> {
        let begun = || SpanName { trace: fastrand::u128(1..), span: 0 };
        let trace = match (self.parent, self.sampled) {
            (None, Some(false)) => return None,
            (parent, _) => parent.unwrap_or_else(begun),
        };
        let sampled = self.sampled.unwrap_or_else(|| share.takes(trace.draw()));
        let joined = Joined {
            span: SpanName { trace: trace.trace, span: fastrand::u64(1..) },
            parent: self.parent.map(|parent| parent.span),
            sampled,
        };
        // Nothing is said of a span that nobody will see; but that nobody will is said to those who come after.
        if sampled || self.parent.is_none() || self.sampled.is_none() {
            self.write(headers, &joined);
        }
        Some(joined)
    }

    fn write(&self, headers: &mut HeaderMap, joined: &Joined) {
        w3c::write(headers, joined);
        if !self.w3c {
            headers.remove(TRACESTATE);
        }
        if let Some(b3) = &self.b3 {
            b3.write(headers, joined);
        }
    }
}

/// The only value of a header. More than one could mean either.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// A number that is not 0, of exactly `digits` hexadecimal digits.
fn hex(text: &[u8], digits: usize, upper: bool) -> Option<u128> {
    let is_digit = |byte: &u8| byte.is_ascii_hexdigit() && (upper || !byte.is_ascii_uppercase());
    if text.len() != digits || !text.iter().all(is_digit) {
        return None;
    }
    let number = u128::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()?;
    (number != 0).then_some(number)
}

#[cfg(test)]
mod tests;
