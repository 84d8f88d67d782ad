//! Logs to stderr, and spans to an OTLP collector if there is one.

use opentelemetry::global;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::EnvFilter;

/// The environment variable that names the collector, as OpenTelemetry has it.
pub const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Keeps the exporter; [`Telemetry::shutdown`] sends what is left.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets up logging (a level such as `info`, or directives such as `info,kube=debug`), and traces if `OTEL_EXPORTER_OTLP_ENDPOINT`
/// is set. Call within a tokio runtime.
pub fn init(directives: &str, format: LogFormat, service: &'static str) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        anyhow::anyhow!("--log \"{directives}\": {error}; write a level such as info, or target=level pairs")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    if installed.is_err() {
        tracing::debug!("logging was set up already");
    }
    let traces = match std::env::var_os(OTLP_ENDPOINT) {
        Some(endpoint) if !endpoint.is_empty() => {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .build()
                .map_err(|error| anyhow::anyhow!("{OTLP_ENDPOINT}: {error}; write http://<host>:4317 or unset it"))?;
            let resource = Resource::builder().with_service_name(service).build();
            let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
            global::set_tracer_provider(provider.clone());
            Some(provider)
        }
        _ => None,
    };
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends spans that were not sent yet.
    pub fn shutdown(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}
