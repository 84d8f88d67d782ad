//! A line of the access log for people: fields in a fixed order, `-` where there is nothing to say.
//!
//! ```text
//! [start] direction "method path protocol" status reason received sent ms "authority" service backend upstream source "user agent" "request id" trace
//! ```

use std::io::Write as _;
use std::time::Duration;

use super::entry::Entry;

pub fn write(entry: &Entry, into: &mut Vec<u8>) {
    let asked = entry.request.as_ref();
    let _ = write!(into, "[{}] {} ", entry.start_text(), entry.direction.as_str());
    match asked {
        Some(asked) => quoted(&[&asked.method, &asked.path, protocol(entry)], into),
        None => quoted(&[protocol(entry)], into),
    }
    match entry.status {
        Some(status) => drop(write!(into, " {status}")),
        None => into.extend(b" -"),
    }
    word(&entry.reason, into);
    let _ = write!(into, " {} {} {}", entry.bytes_received, entry.bytes_sent, millis(entry.duration));
    into.push(b' ');
    quoted(&[asked.map_or("-", |asked| &asked.authority)], into);
    word(&entry.service, into);
    word(&entry.backend, into);
    word(&entry.upstream.map(|address| address.to_string()).unwrap_or_default(), into);
    word(&entry.source, into);
    for text in [asked.map_or("-", |asked| &asked.user_agent), asked.map_or("-", |asked| &asked.request_id)] {
        into.push(b' ');
        quoted(&[text], into);
    }
    word(&entry.trace.map(|trace| format!("{:032x}", trace.span.trace)).unwrap_or_default(), into);
}

pub fn protocol(entry: &Entry) -> &'static str {
    match entry.request.as_ref().map(|asked| asked.version) {
        None => "tcp",
        Some("1.0") => "HTTP/1.0",
        Some("2") => "HTTP/2",
        Some(_) => "HTTP/1.1",
    }
}

/// With three digits behind the point.
pub fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Words are of this program or of Kubernetes' names; they have no room for more.
fn word(text: &str, into: &mut Vec<u8>) {
    into.push(b' ');
    match text {
        "" => into.push(b'-'),
        text => escaped(text, true, into),
    }
}

/// Several texts, with a space between two, in quotes.
fn quoted(texts: &[&str], into: &mut Vec<u8>) {
    into.push(b'"');
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            into.push(b' ');
        }
        escaped(if text.is_empty() { "-" } else { text }, false, into);
    }
    into.push(b'"');
}

/// Whatever could end a field or a line, or could be taken for something else by a terminal, is written as `\xNN`.
fn escaped(text: &str, is_word: bool, into: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => into.extend([b'\\', byte]),
            b'!'..=b'~' => into.push(byte),
            b' ' if !is_word => into.push(byte),
            _ => drop(write!(into, "\\x{byte:02x}")),
        }
    }
}
