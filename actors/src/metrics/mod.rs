//! Metrics of the control plane.
//!
//! Like everything else they are computed from the log: a task follows it and counts. What is not in the log (answers of the
//! validating webhook, restarts of actors) is counted where it happens. `docs/controller.md` lists them.

mod control_plane;
mod exposition;
mod projection;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use fsm_store::{EventLog, Seq};
use futures::StreamExt;

pub use projection::Projection;

use crate::ControlPlane;
use exposition::Exposition;

/// All metrics; shared by the task that follows the log and the port that shows them.
#[derive(Default)]
pub struct Metrics {
    projection: Mutex<Projection>,
    control: OnceLock<Weak<ControlPlane>>,
    validations_ok: AtomicU64,
    validations_refused: AtomicU64,
}

impl Metrics {
    /// Counts every record from `from` on, until the log is closed or can't be read.
    pub async fn follow(self: Arc<Self>, log: Arc<dyn EventLog>, from: Seq) {
        let mut records = log.tail(from);
        while let Some(batch) = records.next().await {
            match batch {
                Ok(batch) => {
                    let mut projection = self.projection();
                    batch.iter().for_each(|record| projection.observe(record));
                }
                Err(error) => tracing::error!(%error, "metrics stand still, since the log can't be read"),
            }
        }
    }

    /// Shows this control plane too, as long as it runs. The first one counts.
    pub fn observe(&self, control: &Arc<ControlPlane>) {
        self.control.get_or_init(|| Arc::downgrade(control));
    }

    /// Counts an answer of the validating webhook.
    pub fn validated(&self, accepted: bool) {
        let counter = if accepted { &self.validations_ok } else { &self.validations_refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut out = Exposition::default();
        out.family("fsm_version_info", "gauge", "Version of the control plane.");
        out.sample("fsm_version_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        self.projection().render(&mut out);
        if let Some(control) = self.control.get().and_then(Weak::upgrade) {
            control_plane::render(&control.catalog(), &control.counters(), &mut out);
        }
        let name = "fsm_admission_webhook_response_total";
        out.family(name, "counter", "Answers of the webhooks.");
        let (injected, refused) = self.projection().admissions();
        for (kind, success, count) in [
            ("Pod", "true", injected),
            ("Pod", "false", refused),
            ("Policy", "true", self.validations_ok.load(Ordering::Relaxed)),
            ("Policy", "false", self.validations_refused.load(Ordering::Relaxed)),
        ] {
            out.sample(name, &[("kind", kind), ("success", success)], count as f64);
        }
        out.finish()
    }

    fn projection(&self) -> MutexGuard<'_, Projection> {
        self.projection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
