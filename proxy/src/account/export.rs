//! The spans' way out: collected in batches, and sent by OTLP over gRPC.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Counter;
use crate::throttle::Throttle;

/// Spans that may wait; more are lost, and counted.
const WAITING: usize = 2048;
/// Spans that are sent together, at most.
const BATCH: usize = 512;
/// How long the first span of a batch waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// A collector that does not answer is given up for this batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two messages about a collector that cannot be reached.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What became of spans.
#[derive(Debug, Default)]
pub struct Spans {
    pub sent: Counter,
    pub lost: Counter,
}

/// Where this proxy is, as spans say it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub namespace: String,
    pub pod: String,
    pub node: String,
    /// The workload: what controls the pod, or its service account.
    pub workload: String,
}

impl Place {
    fn resource(&self) -> Resource {
        let attributes = [
            ("service.namespace", &self.namespace),
            ("k8s.namespace.name", &self.namespace),
            ("k8s.pod.name", &self.pod),
            ("k8s.node.name", &self.node),
        ];
        let known = attributes.into_iter().filter(|(_, value)| !value.is_empty());
        Resource::builder()
            .with_service_name(self.workload.clone())
            .with_attributes(known.map(|(key, value)| KeyValue::new(key, value.clone())))
            .build()
    }
}

/// Takes spans for the collector that the configuration names at that moment.
pub struct Exporter {
    /// The collector in the proxy's environment, for a configuration that names none.
    fallback: Option<String>,
    spans: Arc<Spans>,
    active: ArcSwapOption<Active>,
    changing: Mutex<()>,
    /// There is nowhere to send spans to, and it was said.
    nowhere: AtomicBool,
}

struct Active {
    endpoint: String,
    queue: mpsc::Sender<Order>,
}

enum Order {
    Send(Box<SpanData>),
    /// Answered once everything before it is sent.
    Tell(oneshot::Sender<()>),
}

impl Exporter {
    pub fn new(fallback: Option<String>, spans: Arc<Spans>) -> Self {
        let nowhere = AtomicBool::new(false);
        Self { fallback, spans, active: ArcSwapOption::empty(), changing: Mutex::default(), nowhere }
    }

    /// Never waits. Needs a tokio runtime.
    pub fn send(&self, span: SpanData, endpoint: Option<&str>, place: impl FnOnce() -> Place) {
        let sent = self.queue(endpoint, place).is_some_and(|queue| queue.try_send(Order::Send(Box::new(span))).is_ok());
        if !sent {
            self.spans.lost.add(1);
        }
    }

    /// Waits until everything so far is sent, at most `limit`.
    pub async fn finish(&self, limit: Duration) {
        let Some(active) = self.active.load_full() else { return };
        let (tell, told) = oneshot::channel();
        let sent = async {
            if active.queue.send(Order::Tell(tell)).await.is_ok() {
                let _ = told.await;
            }
        };
        let _ = tokio::time::timeout(limit, sent).await;
    }

    fn queue(&self, endpoint: Option<&str>, place: impl FnOnce() -> Place) -> Option<mpsc::Sender<Order>> {
        let Some(endpoint) = endpoint.or(self.fallback.as_deref()) else {
            if !self.nowhere.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "spans are lost: name a collector in spec.observability.tracing.address of the MeshConfig, \
                     or in OTEL_EXPORTER_OTLP_ENDPOINT of the proxy"
                );
            }
            return None;
        };
        let in_use = || self.active.load_full().filter(|active| active.endpoint == endpoint);
        if let Some(active) = in_use() {
            return Some(active.queue.clone());
        }
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(active) = in_use() {
            return Some(active.queue.clone());
        }
        let (queue, orders) = mpsc::channel(WAITING);
        match Otlp::builder().with_tonic().with_endpoint(endpoint).with_timeout(TIMEOUT).build() {
            Ok(mut otlp) => {
                otlp.set_resource(&place().resource());
                tokio::spawn(run(otlp, orders, endpoint.to_owned(), Arc::clone(&self.spans)));
            }
            // The queue is closed then, and what comes is counted as lost.
            Err(error) => tracing::warn!(endpoint, %error, "spans are lost: this is no OTLP endpoint"),
        }
        // The one before sends what it has, and ends with its queue.
        self.active.store(Some(Arc::new(Active { endpoint: endpoint.to_owned(), queue: queue.clone() })));
        Some(queue)
    }
}

async fn run(otlp: Otlp, mut orders: mpsc::Receiver<Order>, endpoint: String, spans: Arc<Spans>) {
    let complaints = Throttle::new(COMPLAIN_EVERY);
    let (mut batch, mut waiting, mut open) = (Vec::new(), Vec::new(), true);
    while open {
        let full_or_late = async {
            let Some(first) = orders.recv().await else { return false };
            let late = tokio::time::sleep(DELAY);
            tokio::pin!(late);
            let mut next = first;
            loop {
                match next {
                    Order::Send(span) => batch.push(*span),
                    Order::Tell(tell) => {
                        waiting.push(tell);
                        return true;
                    }
                }
                if batch.len() == BATCH {
                    return true;
                }
                next = tokio::select! {
                    order = orders.recv() => match order {
                        Some(order) => order,
                        None => return false,
                    },
                    () = &mut late => return true,
                };
            }
        };
        open = full_or_late.await;
        if !batch.is_empty() {
            let count = batch.len() as u64;
            match otlp.export(std::mem::take(&mut batch)).await {
                Ok(()) => spans.sent.add(count),
                Err(error) => {
                    spans.lost.add(count);
                    if complaints.pass().is_some() {
                        tracing::warn!(endpoint, %error, lost = count, "the collector did not take spans");
                    }
                }
            }
        }
        for tell in waiting.drain(..) {
            let _ = tell.send(());
        }
    }
}
