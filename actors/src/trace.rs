//! Trace contexts: every change that enters the mesh begins a trace of its own, which goes with it to the proxies.

use fsm_store::TraceContext;

/// A new, sampled trace. Without randomness there is none (all zero), which W3C reads as "no trace".
pub fn new_trace() -> TraceContext {
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
