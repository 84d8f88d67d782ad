//! A request or an opaque connection as a span, by OpenTelemetry's semantic conventions for HTTP.

use std::borrow::Cow;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::entry::Entry;
use crate::metrics::Direction;
use crate::trace::Joined;

/// The client's sidecar speaks for the client, the server's for the server.
pub fn of(entry: &Entry, joined: Joined) -> SpanData {
    let kind = match entry.direction {
        Direction::Outbound => SpanKind::Client,
        Direction::Inbound => SpanKind::Server,
    };
    let name = entry.request.as_ref().map_or(Cow::Borrowed("tcp"), |asked| Cow::Owned(asked.method.clone()));
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(joined.span.trace.to_be_bytes()),
            SpanId::from_bytes(joined.span.span.to_be_bytes()),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: joined.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_be_bytes())),
        parent_span_is_remote: joined.parent.is_some(),
        span_kind: kind,
        name,
        start_time: entry.start,
        end_time: entry.start + entry.duration,
        attributes: attributes(entry),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: status(entry),
        instrumentation_scope: InstrumentationScope::builder("fsm-proxy")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn attributes(entry: &Entry) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(20);
    let mut text = |key: &'static str, value: &str| {
        if !value.is_empty() {
            attributes.push(KeyValue::new(key, value.to_owned()));
        }
    };
    if let Some(asked) = &entry.request {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        text("http.request.method", &asked.method);
        text("url.path", path);
        text("url.query", query);
        text("url.scheme", "http");
        text("server.address", &asked.authority);
        text("network.protocol.name", "http");
        text("network.protocol.version", asked.version);
        text("user_agent.original", &asked.user_agent);
    }
    text("network.transport", "tcp");
    text("error.type", &error_type(entry).unwrap_or_default());
    text("fsm.direction", entry.direction.as_str());
    text("fsm.service", &entry.service);
    text("fsm.backend", &entry.backend);
    text("fsm.split", &entry.split);
    text("fsm.policy", &entry.policy);
    text("fsm.route", &entry.route);
    text("fsm.source", &entry.source);
    text("fsm.reason", &entry.reason);
    text("fsm.details", &entry.details);
    text("fsm.pod", &entry.pod);
    let mut number = |key: &'static str, value: Option<u64>| {
        if let Some(value) = value {
            attributes.push(KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX)));
        }
    };
    number("http.response.status_code", entry.status.map(u64::from));
    if entry.is_connection() {
        number("fsm.bytes_received", Some(entry.bytes_received));
        number("fsm.bytes_sent", Some(entry.bytes_sent));
    } else {
        number("http.request.body.size", Some(entry.bytes_received).filter(|bytes| *bytes > 0));
        number("http.response.body.size", Some(entry.bytes_sent));
    }
    number("http.request.resend_count", Some(u64::from(entry.retries)).filter(|retries| *retries > 0));
    number("fsm.seq", Some(entry.seq));
    if let Some(upstream) = entry.upstream {
        attributes.push(KeyValue::new("network.peer.address", upstream.ip().to_string()));
        attributes.push(KeyValue::new("network.peer.port", i64::from(upstream.port())));
    }
    attributes
}

/// For a client every status from 400 on is an error, for a server those from 500 on; else the word for the reason.
fn error_type(entry: &Entry) -> Option<String> {
    let least = if entry.direction == Direction::Outbound { 400 } else { 500 };
    let bad = entry.status.filter(|status| *status >= least);
    match (bad, entry.reason.as_str()) {
        (_, reason) if !reason.is_empty() => Some(reason.to_owned()),
        (Some(status), _) => Some(status.to_string()),
        (None, _) => None,
    }
}

fn status(entry: &Entry) -> Status {
    let by_policy = entry.direction == Direction::Inbound && entry.status.is_some_and(|status| status < 500);
    match error_type(entry) {
        // The server did what it should.
        Some(_) if by_policy => Status::Unset,
        Some(_) => Status::error(entry.details.clone()),
        None => Status::Unset,
    }
}
