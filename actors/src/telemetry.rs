//! Logs to stderr, and spans to an OTLP collector if there is one.

use opentelemetry::global;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// The environment variable that names the collector, as OpenTelemetry has it.
pub const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

const DEFAULT_LEVEL: &str = "info";

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

/// The level of log lines, changeable while the program runs.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Changes the level to one of MeshConfig's words; empty means `info`.
    pub fn set(&self, level: &str) {
        let filter = EnvFilter::new(directive(level));
        if let Err(error) = self.0.reload(filter) {
            tracing::warn!(%error, level, "the log level can't be changed");
        }
    }
}

/// MeshConfig knows more levels than there are. Details are those of FSM, not of the libraries that it uses.
fn directive(level: &str) -> &str {
    match level {
        "" => DEFAULT_LEVEL,
        "debug" => "info,fsm_actors=debug,fsm_store=debug",
        "trace" => "info,fsm_actors=trace,fsm_store=trace",
        "fatal" | "panic" => "error",
        "disabled" => "off",
        other => other,
    }
}

/// Sets up logging with `directives` (a level such as `info`, or `info,kube=debug`); without them the level can be changed
/// later with the handle that is given. Sets up traces if `OTEL_EXPORTER_OTLP_ENDPOINT` is set. Call within a tokio runtime.
pub fn init(
    directives: Option<&str>,
    format: LogFormat,
    service: &'static str,
) -> anyhow::Result<(Telemetry, Option<LogLevel>)> {
    let filter = EnvFilter::try_new(directives.unwrap_or(DEFAULT_LEVEL)).map_err(|error| {
        anyhow::anyhow!("--log: {error}; write a level such as info, or target=level pairs separated by commas")
    })?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_err() {
        tracing::debug!("logging is set up already");
    }
    let level = directives.is_none().then_some(LogLevel(handle));
    Ok((Telemetry { traces: traces(service)? }, level))
}

fn traces(service: &'static str) -> anyhow::Result<Option<SdkTracerProvider>> {
    if std::env::var_os(OTLP_ENDPOINT).is_none_or(|endpoint| endpoint.is_empty()) {
        return Ok(None);
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .build()
        .map_err(|error| anyhow::anyhow!("{OTLP_ENDPOINT}: {error}; write http://<host>:4317, or unset it"))?;
    let resource = Resource::builder().with_service_name(service).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    global::set_tracer_provider(provider.clone());
    Ok(Some(provider))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_of_mesh_config_is_one_of_ours() {
        for level in ["", "trace", "debug", "info", "warn", "error", "fatal", "panic", "disabled"] {
            assert!(EnvFilter::try_new(directive(level)).is_ok(), "{level}");
        }
    }
}
