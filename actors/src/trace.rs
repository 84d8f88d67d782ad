//! Changes that enter the mesh: each begins a trace, which goes with it through the log to the proxies.

use fsm_store::TraceContext;
use opentelemetry::KeyValue;
use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{Span, Tracer};

/// A change on its way into the log: the root span of its trace, which ends when this is dropped.
pub struct Change {
    /// What goes into the log.
    pub context: TraceContext,
    span: Option<BoxedSpan>,
}

impl Change {
    /// Begins a trace. `source` says what brings the change (`watch`, `admission`, …), `about` which object it is about.
    ///
    /// Without a collector the trace has an id all the same: it is shown with every record, and proxies may have a collector.
    pub fn begin(source: &'static str, about: impl Into<String>) -> Self {
        let mut span = global::tracer("fsm-controller").start("change");
        let context = span.span_context();
        if !context.is_valid() {
            return Self { context: random_context(), span: None };
        }
        let context = TraceContext {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        };
        span.set_attribute(KeyValue::new("fsm.source", source));
        span.set_attribute(KeyValue::new("fsm.object", about.into()));
        Self { context, span: Some(span) }
    }

    /// Whether a collector will hear of it.
    pub fn is_exported(&self) -> bool {
        self.span.is_some()
    }
}

/// A sampled context. Without randomness there is none (all zero), which W3C reads as "no trace".
fn random_context() -> TraceContext {
    let mut bytes = [0_u8; 24];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return TraceContext::default();
    }
    let mut context = TraceContext { flags: 1, ..TraceContext::default() };
    context.trace_id.copy_from_slice(&bytes[..16]);
    context.span_id.copy_from_slice(&bytes[16..]);
    context
}

/// The trace id as W3C writes it; empty if there is no trace.
pub fn trace_id(trace: &TraceContext) -> String {
    if trace.trace_id == [0; 16] {
        return String::new();
    }
    trace.trace_id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_has_a_trace_of_its_own() {
        let (one, two) = (Change::begin("watch", "v1/Pod shop/a"), Change::begin("watch", "v1/Pod shop/a"));
        assert_ne!(one.context.trace_id, two.context.trace_id);
        assert_eq!(trace_id(&one.context).len(), 32);
        assert_eq!(one.context.flags & 1, 1);
        assert_eq!(trace_id(&TraceContext::default()), "");
    }
}
