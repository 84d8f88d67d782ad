//! Logs to stderr, and traces to an OTLP collector if `OTEL_EXPORTER_OTLP_ENDPOINT` names one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Keeps the exporter; its end sends what is left.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    level: Option<LogLevel>,
}

/// What is logged, changeable while the program runs.
#[derive(Clone, Debug)]
pub struct LogLevel {
    handle: Option<reload::Handle<EnvFilter, Registry>>,
    current: Arc<Mutex<String>>,
}

/// What is wrong with a level.
#[derive(Debug, thiserror::Error)]
pub enum InvalidLevel {
    #[error("log level \"{0}\": {1}; write info, or info,fsm_proxy=debug")]
    Directives(String, ParseError),
    #[error("the log level cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

impl LogLevel {
    /// For tests: of no log.
    #[cfg(test)]
    pub(crate) fn detached(directives: &str) -> Self {
        Self { handle: None, current: Arc::new(Mutex::new(directives.to_owned())) }
    }

    /// The directives that hold.
    pub fn get(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has `directives` hold from now on; those before stay if these are none.
    pub fn set(&self, directives: &str) -> Result<(), InvalidLevel> {
        let filter = filter(directives)?;
        if let Some(handle) = &self.handle {
            handle.reload(filter)?;
        }
        directives.clone_into(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
        tracing::info!(level = directives, "the log level has changed");
        Ok(())
    }
}

fn filter(directives: &str) -> Result<EnvFilter, InvalidLevel> {
    EnvFilter::try_new(directives).map_err(|error| InvalidLevel::Directives(directives.to_owned(), error))
}

impl Telemetry {
    /// Log lines of `directives` (`info`, or `info,fsm_proxy=debug`) go to stderr. Call this once, inside a tokio runtime.
    pub fn start(directives: &str, pod: &str) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(filter(directives)?);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
        let current = Arc::new(Mutex::new(directives.to_owned()));
        let mut level = Some(LogLevel { handle: Some(handle), current });
        if tracing_subscriber::registry().with(filter).with(lines).try_init().is_err() {
            tracing::debug!("logs were set up already");
            level = None;
        }
        let Some(endpoint) = endpoint() else { return Ok(Self { traces: None, level }) };
        let traces = export_to(&endpoint, pod)?;
        global::set_tracer_provider(traces.clone());
        Ok(Self { traces: Some(traces), level })
    }

    /// For changing the log level; none if something else has set up the log.
    pub fn level(&self) -> Option<LogLevel> {
        self.level.clone()
    }
}

/// The collector that the environment names.
pub fn endpoint() -> Option<String> {
    std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty())
}

/// Spans go to the collector at `endpoint`, in batches.
fn export_to(endpoint: &str, pod: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.map_err(|error| {
        anyhow::anyhow!("OTEL_EXPORTER_OTLP_ENDPOINT is \"{endpoint}\": {error}; expected http://host:4317")
    })?;
    let resource = Resource::builder()
        .with_service_name("fsm-proxy")
        .with_attribute(KeyValue::new("k8s.pod.name", pod.to_owned()))
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
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
        Self::of_tracer(&global::tracer_provider().tracer("fsm-proxy"), traceparent, name, proxy, seq)
    }

    fn of_tracer<T>(tracer: &T, traceparent: &str, name: &'static str, proxy: &str, seq: &str) -> Self
    where
        T: Tracer<Span: Send + Sync + 'static>,
    {
        let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
        // A number, as in the controller's spans, so that both are found by one query.
        let seq = seq.parse::<i64>().map_or_else(|_| seq.to_owned().into(), opentelemetry::Value::from);
        let attributes = [KeyValue::new("fsm.proxy", proxy.to_owned()), KeyValue::new("fsm.seq", seq)];
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

#[cfg(test)]
pub(crate) mod collector;

#[cfg(test)]
mod tests {
    use super::collector::Collector;
    use super::*;

    const TRACE_ID: [u8; 16] =
        [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];
    const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn contains(body: &[u8], part: &[u8]) -> bool {
        body.windows(part.len()).any(|window| window == part)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn applying_a_version_is_part_of_the_trace_of_its_change() {
        let mut collector = Collector::start().await;
        let traces = export_to(&collector.endpoint, "bookstore-v1-0").unwrap();
        drop(Span::of_tracer(&traces.tracer("test"), TRACEPARENT, "apply", "bookstore/bookstore-v1-0", "42"));
        let telemetry = Telemetry { traces: Some(traces), level: None };
        tokio::task::spawn_blocking(move || drop(telemetry)).await.unwrap();
        let (path, body) = collector.call().await;
        assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        let parent = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];
        for part in
            [&TRACE_ID[..], &parent, b"apply", b"fsm-proxy", b"bookstore/bookstore-v1-0", b"fsm.seq\x12\x02\x18\x2a"]
        {
            assert!(contains(&body, part), "{part:?} is missing");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_none_is_named() {
        let error = export_to("not an address", "pod").unwrap_err().to_string();
        assert!(error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is \"not an address\""), "{error}");
    }

    #[test]
    fn without_a_collector_a_span_costs_nothing_and_fails_nothing() {
        let span = Span::child_of("nonsense", "apply", "a/b", "1");
        span.fail("no reason");
    }
}
