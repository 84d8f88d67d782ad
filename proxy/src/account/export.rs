//! The spans' way out: by OTLP over gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};

use super::batches::{Batches, Carrier, Sent};
use super::place::Place;

/// A collector that does not answer is given up for this batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Takes spans for the collector that the configuration names at that moment.
pub struct Exporter {
    /// The collector in the proxy's environment, for a configuration that names none.
    fallback: Option<String>,
    batches: Batches<Box<SpanData>>,
    /// There is nowhere to send spans to, and it was said.
    nowhere: AtomicBool,
}

impl Exporter {
    pub fn new(fallback: Option<String>, counts: Arc<Sent>) -> Self {
        Self { fallback, batches: Batches::new(counts), nowhere: AtomicBool::new(false) }
    }

    /// Never waits. Needs a tokio runtime.
    pub fn send(&self, span: SpanData, endpoint: Option<&str>, place: impl FnOnce() -> Place) {
        let Some(endpoint) = endpoint.or(self.fallback.as_deref()) else {
            if !self.nowhere.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "spans are lost: name a collector in spec.observability.tracing.address of the MeshConfig, \
                     or in OTEL_EXPORTER_OTLP_ENDPOINT of the proxy"
                );
            }
            return self.batches.lose();
        };
        self.batches.send(Box::new(span), endpoint, || open(endpoint, &place()));
    }

    /// Waits until everything so far is sent, at most `limit`.
    pub async fn finish(&self, limit: Duration) {
        self.batches.finish(limit).await;
    }
}

fn open(endpoint: &str, place: &Place) -> Option<Otlp> {
    match Otlp::builder().with_tonic().with_endpoint(endpoint).with_timeout(TIMEOUT).build() {
        Ok(mut otlp) => {
            otlp.set_resource(&resource(place));
            Some(otlp)
        }
        Err(error) => {
            tracing::warn!(endpoint, %error, "spans are lost: this is no OTLP endpoint");
            None
        }
    }
}

impl Carrier for Otlp {
    type Item = Box<SpanData>;
    type Error = OTelSdkError;

    const ITEMS: &str = "spans";

    async fn carry(&mut self, batch: Vec<Box<SpanData>>) -> Result<(), OTelSdkError> {
        self.export(batch.into_iter().map(|span| *span).collect()).await
    }
}

fn resource(place: &Place) -> Resource {
    let attributes = [
        ("service.namespace", &place.namespace),
        ("k8s.namespace.name", &place.namespace),
        ("k8s.pod.name", &place.pod),
        ("k8s.node.name", &place.node),
    ];
    let known = attributes.into_iter().filter(|(_, value)| !value.is_empty());
    Resource::builder()
        .with_service_name(place.workload.clone())
        .with_attributes(known.map(|(key, value)| KeyValue::new(key, value.clone())))
        .build()
}
