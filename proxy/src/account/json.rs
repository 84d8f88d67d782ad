//! A line of the access log as a JSON object. What there is nothing to say about is left out.

use std::sync::Arc;

use serde::Serialize;

use super::entry::Entry;
use super::place::Place;

/// In the order in which people look for it. The names are those of Envoy's access log, which FSM's dashboards and parsers know.
#[derive(Serialize)]
struct Line<'e> {
    start_time: String,
    direction: &'static str,
    protocol: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    method: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    path: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    authority: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_code: Option<u16>,
    #[serde(skip_serializing_if = "str::is_empty")]
    response_code_details: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    details: &'e str,
    bytes_received: u64,
    bytes_sent: u64,
    duration: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_byte: Option<f64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    service: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    upstream_cluster: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_host: Option<std::net::SocketAddr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    upstream_pod: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    split: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    policy: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    route: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    source: &'e str,
    #[serde(skip_serializing_if = "is_zero")]
    retries: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'e str,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    seq: u64,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A line for who reads the lines of many proxies.
#[derive(Serialize)]
struct Placed<'e> {
    #[serde(flatten)]
    line: Line<'e>,
    #[serde(flatten)]
    place: &'e Place,
}

pub fn write(entry: &Entry, into: &mut Vec<u8>) {
    // Texts and numbers always have a JSON form.
    let _ = serde_json::to_writer(into, &line(entry));
}

/// All of them, each with the place where it was written.
pub fn array(place: &Place, entries: &[Arc<Entry>]) -> Vec<u8> {
    let lines: Vec<_> = entries.iter().map(|entry| Placed { line: line(entry), place }).collect();
    // As above.
    serde_json::to_vec(&lines).unwrap_or_default()
}

fn line(entry: &Entry) -> Line<'_> {
    let asked = entry.request.as_ref();
    let of = |text: fn(&super::entry::Asked) -> &str| asked.map_or("", text);
    Line {
        start_time: entry.start_text(),
        direction: entry.direction.as_str(),
        protocol: super::text::protocol(entry),
        method: of(|asked| &asked.method),
        path: of(|asked| &asked.path),
        authority: of(|asked| &asked.authority),
        response_code: entry.status,
        response_code_details: &entry.reason,
        details: &entry.details,
        bytes_received: entry.bytes_received,
        bytes_sent: entry.bytes_sent,
        duration: super::text::millis(entry.duration),
        time_to_first_byte: entry.first_byte.map(super::text::millis),
        service: &entry.service,
        upstream_cluster: &entry.backend,
        upstream_host: entry.upstream,
        upstream_pod: &entry.pod,
        split: &entry.split,
        policy: &entry.policy,
        route: &entry.route,
        source: &entry.source,
        retries: entry.retries,
        user_agent: of(|asked| &asked.user_agent),
        request_id: of(|asked| &asked.request_id),
        trace_id: entry.trace.map(|trace| format!("{:032x}", trace.span.trace)),
        span_id: entry.trace.map(|trace| format!("{:016x}", trace.span.span)),
        seq: entry.seq,
    }
}
