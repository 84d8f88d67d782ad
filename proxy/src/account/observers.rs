//! Those to whom accounts go.

use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::{RemoteLog, Snapshot};

use super::batches::Batches;
use super::entry::Entry;
use super::export::Exporter;
use super::place::Place;
use super::remote::Sink;
use super::writer::{Output, Writer};
use crate::metrics::Metrics;

/// Who is told of requests.
pub struct Observers {
    pub(super) writer: Writer,
    remote: Batches<Arc<Entry>>,
    pub(super) exporter: Exporter,
    /// Kind and name of what controls the pod.
    owner: (String, String),
}

impl Observers {
    /// Lines of the access log go to `output`, spans to `collector` if the configuration names none.
    pub fn new(output: Output, collector: Option<String>, owner: (String, String), metrics: &Metrics) -> Self {
        Self {
            writer: Writer::new(output, Arc::clone(&metrics.lines)),
            remote: Batches::new(Arc::clone(&metrics.remote_entries)),
            exporter: Exporter::new(collector, Arc::clone(&metrics.spans)),
            owner,
        }
    }

    /// Waits until everything that was told is out, at most about twice `limit`.
    pub async fn finish(self: &Arc<Self>, limit: Duration) {
        tokio::join!(self.exporter.finish(limit), self.remote.finish(limit));
        let this = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || this.writer.finish(limit)).await;
    }

    /// Has the entry sent to the server that takes the access log.
    pub(super) fn send(&self, entry: Arc<Entry>, log: &RemoteLog, snapshot: &Snapshot) {
        self.remote.send(entry, &log.url, || Some(Sink::new(&log.url, self.place(snapshot))));
    }

    /// Where this proxy is.
    pub(super) fn place(&self, snapshot: &Snapshot) -> Place {
        let workload = snapshot.workload();
        let name = if self.owner.1.is_empty() { &workload.service_account } else { &self.owner.1 };
        Place {
            namespace: workload.namespace.clone(),
            pod: workload.pod.clone(),
            node: workload.node.clone(),
            workload: name.clone(),
        }
    }
}
