//! Trace contexts: every change that enters the mesh begins a trace of its own, which goes with it to the proxies.

use fsm_store::TraceContext;
use opentelemetry::global;
use opentelemetry::trace::{Span, Tracer};

/// A new trace. If spans are exported, its first one, "change", is exported with it; else it is a sampled one for others to use.
/// Without randomness there is none (all zero), which W3C reads as "no trace".
pub fn new_trace() -> TraceContext {
    let span = global::tracer("fsm-controller").start("change");
    let context = span.span_context();
    if context.is_valid() {
        return TraceContext {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        };
    }
    let mut bytes = [0_u8; 24];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return TraceContext::default();
    }
    let mut trace = TraceContext { flags: 1, ..TraceContext::default() };
    trace.trace_id.copy_from_slice(&bytes[..16]);
    trace.span_id.copy_from_slice(&bytes[16..]);
    trace
}

/// The trace id as W3C writes it; empty if there is no trace.
pub fn trace_id(trace: &TraceContext) -> String {
    if trace.trace_id == [0; 16] {
        return String::new();
    }
    trace.trace_id.iter().map(|byte| format!("{byte:02x}")).collect()
}
