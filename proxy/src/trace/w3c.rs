//! W3C Trace Context, level 1: `traceparent`.

use http::{HeaderMap, HeaderValue};

use super::{Joined, SpanName, TRACEPARENT, hex, only};

/// Of version 00: 2 digits, 32, 16 and 2, with dashes between them.
const LEN: usize = 55;
const SAMPLED: u8 = 1;

/// The caller's span, and whether it is sampled.
pub fn read(headers: &HeaderMap) -> Option<(SpanName, bool)> {
    let text = only(headers, &TRACEPARENT)?;
    let digits = |from: usize, to: usize| text.get(from..to);
    let version = byte(digits(0, 2)?)?;
    let goes_on = match version {
        // Later versions may have more behind another dash (section 3.2.4).
        0 => false,
        0xff => return None,
        _ => text.get(LEN) == Some(&b'-'),
    };
    let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
    if !dashes || (text.len() != LEN && !goes_on) {
        return None;
    }
    let trace = hex(digits(3, 35)?, 32, false)?;
    let span = hex(digits(36, 52)?, 16, false)?;
    let flags = byte(digits(53, 55)?)?;
    Some((SpanName { trace, span: u64::try_from(span).ok()? }, flags & SAMPLED != 0))
}

/// Two lower-case digits.
fn byte(text: &[u8]) -> Option<u8> {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let text = text.iter().all(is_digit).then_some(text)?;
    u8::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// Always of version 00, whatever came, and without flags that it does not know (section 3.2.2.6).
pub fn write(headers: &mut HeaderMap, joined: &Joined) {
    let text = format!("00-{:032x}-{:016x}-{:02x}", joined.span.trace, joined.span.span, u8::from(joined.sampled));
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(TRACEPARENT, value);
    }
}
