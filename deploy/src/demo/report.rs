//! What `fsm demo --check` prints: the object of the project's contract.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub phases: Vec<Phase>,
    pub bookbuyer: Sales,
    pub bookthief: Thefts,
    pub mtls: Mtls,
    pub propagation_ms: Percentiles,
    pub interception: String,
    pub log: LogSize,
    pub replay: Replayed,
}

/// One phase; what it measured stands beside its name.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub ok: bool,
    #[serde(flatten)]
    pub measured: Map<String, Value>,
}

/// A buyer's counters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sales {
    pub total: u64,
    pub ok: u64,
    pub denied: u64,
    pub failed: u64,
    pub by_backend: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<String>,
}

impl Sales {
    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let by_backend = self.by_backend.iter().map(|(backend, count)| {
            (backend.clone(), count - earlier.by_backend.get(backend).copied().unwrap_or(0).min(*count))
        });
        Self {
            total: self.total.saturating_sub(earlier.total),
            ok: self.ok.saturating_sub(earlier.ok),
            denied: self.denied.saturating_sub(earlier.denied),
            failed: self.failed.saturating_sub(earlier.failed),
            by_backend: by_backend.collect(),
            last_refusal: self.last_refusal.clone(),
        }
    }

    /// Answers of one version of the bookstore.
    pub fn of(&self, backend: &str) -> u64 {
        self.by_backend.get(backend).copied().unwrap_or(0)
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Thefts {
    pub total: u64,
    pub ok: u64,
    pub denied: u64,
}

/// Connections between workloads, over all proxies.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Mtls {
    pub connections: u64,
    pub plaintext: u64,
}

/// Milliseconds from a change to its last acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// Nearest-rank percentiles; all 0 if there are no values.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |percent: f64| {
            let index = (values.len() as f64 * percent / 100.0).ceil() as usize;
            values.get(index.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p50: rank(50.0), p99: rank(99.0), max: rank(100.0) }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LogSize {
    pub records: u64,
    pub seq: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Replayed {
    pub versions_checked: u64,
    pub identical: bool,
}

impl Report {
    /// An error naming the phases that failed, if any did.
    pub fn verdict(&self) -> anyhow::Result<()> {
        let failed: Vec<&str> = self.phases.iter().filter(|phase| !phase.ok).map(|phase| phase.name).collect();
        if !failed.is_empty() {
            bail!("phases that failed: {}", failed.join(", "));
        }
        if self.mtls.plaintext > 0 || self.mtls.connections == 0 {
            bail!("traffic between workloads was not all mTLS: {:?}", self.mtls);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::{Percentiles, Sales};

    #[test]
    fn what_a_phase_measured_hides_none_of_its_own_fields() {
        let sold = crate::demo::story::phase("v2-only", true, &Sales { total: 3, denied: 3, ..Sales::default() });
        let text = serde_json::to_string(&sold).unwrap();
        let fields: Map<_, _> = serde_json::from_str(&text).unwrap();
        for field in fields.keys() {
            assert_eq!(text.matches(&format!("\"{field}\":")).count(), 1, "{field} occurs once in {text}");
        }
        assert_eq!((&fields["name"], &fields["ok"], &fields["denied"]), (&json!("v2-only"), &json!(true), &json!(3)));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values = (1..=200).map(f64::from).collect();
        assert_eq!(Percentiles::of(values), Percentiles { p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Percentiles::of(vec![7.0]), Percentiles { p50: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn a_difference_counts_backends_that_are_new() {
        let earlier = Sales { total: 5, ok: 5, by_backend: [("a".into(), 5)].into(), ..Sales::default() };
        let now = Sales {
            total: 9,
            ok: 8,
            denied: 1,
            by_backend: [("a".into(), 5), ("b".into(), 3)].into(),
            ..Sales::default()
        };
        let since = now.since(&earlier);
        assert_eq!((since.total, since.ok, since.denied, since.of("a"), since.of("b")), (4, 3, 1, 0, 3));
    }
}
