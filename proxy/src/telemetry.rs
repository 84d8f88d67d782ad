//! Logs to stderr, and traces to an OTLP collector if `OTEL_EXPORTER_OTLP_ENDPOINT` names one.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::EnvFilter;

/// Keeps the exporter; its end sends what is left.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Log lines of `directives` (`info`, or `info,fsm_proxy=debug`) go to stderr. Call this once, inside a tokio runtime.
    pub fn start(directives: &str, pod: &str) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(directives).map_err(|error| {
            anyhow::anyhow!("log level \"{directives}\": {error}; write info, or info,fsm_proxy=debug")
        })?;
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        if log.try_init().is_err() {
            tracing::debug!("logs were set up already");
        }
        let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_default();
        if endpoint.is_empty() {
            return Ok(Self::default());
        }
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build().map_err(|error| {
            anyhow::anyhow!("OTEL_EXPORTER_OTLP_ENDPOINT is \"{endpoint}\": {error}; expected http://host:4317")
        })?;
        let resource = Resource::builder()
            .with_service_name("fsm-proxy")
            .with_attribute(KeyValue::new("k8s.pod.name", pod.to_owned()))
            .build();
        let traces = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        global::set_tracer_provider(traces.clone());
        Ok(Self { traces: Some(traces) })
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(traces) = self.traces.take()
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// A span of the change that led to a version: part of the trace that began with the watch event. Ends when dropped.
pub(crate) struct Span(Context);

impl Span {
    /// `traceparent` is W3C Trace Context; an empty or invalid one begins a new trace.
    pub fn child_of(traceparent: &str, name: &'static str, proxy: &str, seq: &str) -> Self {
        let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
        let tracer = global::tracer_provider().tracer("fsm-proxy");
        let attributes = [KeyValue::new("fsm.proxy", proxy.to_owned()), KeyValue::new("fsm.seq", seq.to_owned())];
        let builder = tracer.span_builder(name).with_kind(SpanKind::Consumer).with_attributes(attributes);
        let span = tracer.build_with_context(builder, &parent);
        Self(parent.with_span(span))
    }

    pub fn fail(&self, reason: &str) {
        self.0.span().set_status(Status::error(reason.to_owned()));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.0.span().end();
    }
}
