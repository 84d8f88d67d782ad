//! Spans: the way of a change through the control plane, as one trace with the record that it came in.

use std::time::{Duration, SystemTime};

use fsm_store::{Record, Seq, TraceContext};
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{Span, SpanContext, TraceContextExt, TraceFlags, TraceState, Tracer};
use opentelemetry::{Context, KeyValue, SpanId, TraceId};

/// Ends when dropped.
pub(crate) struct ActiveSpan(Option<BoxedSpan>);

/// Begins a span as a child of the change that record `seq` belongs to. Nothing if that has no sampled trace.
pub(crate) fn child(name: &'static str, parent: &TraceContext, seq: Seq) -> ActiveSpan {
    begin(name, parent, seq, None)
}

/// The way of a record from its commit to here.
pub(crate) fn append(record: &Record) {
    let committed = SystemTime::UNIX_EPOCH + Duration::from_micros(record.time.0);
    let mut span = begin("append", &record.entry.trace, record.seq, Some(committed));
    span.note("fsm.topic", || record.entry.topic.to_string());
    span.note("fsm.key", || record.entry.key.to_string());
}

fn begin(name: &'static str, parent: &TraceContext, seq: Seq, start: Option<SystemTime>) -> ActiveSpan {
    if parent.trace_id == [0; 16] || parent.flags & 1 == 0 {
        return ActiveSpan(None);
    }
    let remote = SpanContext::new(
        TraceId::from_bytes(parent.trace_id),
        SpanId::from_bytes(parent.span_id),
        TraceFlags::new(parent.flags),
        true,
        TraceState::default(),
    );
    let tracer = global::tracer("fsm-controller");
    let seq = i64::try_from(seq.0).unwrap_or(i64::MAX);
    let mut builder = tracer.span_builder(name).with_attributes([KeyValue::new("fsm.seq", seq)]);
    builder.start_time = start;
    let span = builder.start_with_context(&tracer, &Context::new().with_remote_span_context(remote));
    ActiveSpan(Some(span))
}

impl ActiveSpan {
    /// Adds an attribute.
    pub fn note(&mut self, key: &'static str, value: impl FnOnce() -> String) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value()));
        }
    }
}

/// The W3C traceparent of a change; empty if it has none.
pub(crate) fn traceparent(trace: &TraceContext) -> String {
    if trace.trace_id == [0; 16] {
        return String::new();
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("00-{}-{}-{:02x}", hex(&trace.trace_id), hex(&trace.span_id), trace.flags)
}
