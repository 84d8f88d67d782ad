//! A change is one trace.

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};

use super::*;

/// Keeps what is exported.
#[derive(Clone, Debug, Default)]
struct Exported(Arc<std::sync::Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

#[tokio::test]
async fn a_change_is_one_trace_from_its_commit_to_the_acknowledgement() {
    let exported = Exported::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
    opentelemetry::global::set_tracer_provider(provider);
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.run_next().await;
    mesh.acked(&first).await;
    let trace = crate::trace::Change::begin("test", "a split").context;
    mesh.plane.facts().append(&applied(split(9, 1)), trace).await.unwrap();
    let next = buyer.run_next().await;
    mesh.acked(&next).await;
    let mut of_change = exported.0.lock().unwrap().clone();
    of_change.retain(|span| span.span_context.trace_id().to_bytes() == trace.trace_id);
    let mut names: Vec<&str> = of_change.iter().map(|span| &*span.name).collect();
    names.sort();
    assert_eq!(
        names,
        ["append", "catalog", "certs", "change", "deliver", "injection", "publisher", "routes", "splits"]
    );
    for span in of_change {
        let parent = if span.name == "change" { [0; 8] } else { trace.span_id };
        assert_eq!(span.parent_span_id.to_bytes(), parent, "{}", span.name);
        assert!(span.start_time <= span.end_time, "{}", span.name);
    }
}
