//! What a container may use of the machine, by the controllers of cgroup v2.

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::cgroup::{Cgroup, CgroupError};
use super::env::parse_quantity;

/// The controllers limits need.
pub(super) const CONTROLLERS: [&str; 2] = ["memory", "cpu"];
/// The period a share of CPU time is counted in, and the smallest share the kernel takes.
const CPU_PERIOD_MICROS: u64 = 100_000;
const CPU_QUOTA_MIN_MICROS: u64 = 1000;

/// A container's limits, and its request of CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Limits {
    memory_bytes: Option<u64>,
    cpu_millis: Option<u64>,
    cpu_request_millis: Option<u64>,
}

impl Limits {
    pub fn of(container: &Container) -> Self {
        let resources = container.resources.as_ref();
        let limits = resources.and_then(|r| r.limits.as_ref());
        let requests = resources.and_then(|r| r.requests.as_ref());
        let amount = |quantity: Option<&Quantity>, scale: f64| {
            let amount = quantity.and_then(|q| parse_quantity(&q.0)).filter(|amount| *amount > 0.0)?;
            Some((amount * scale).ceil() as u64)
        };
        Self {
            memory_bytes: amount(limits.and_then(|l| l.get("memory")), 1.0),
            cpu_millis: amount(limits.and_then(|l| l.get("cpu")), 1000.0),
            cpu_request_millis: amount(requests.and_then(|l| l.get("cpu")), 1000.0),
        }
    }

    /// What the kernel is told: controller, file, text.
    fn files(self) -> Vec<(&'static str, &'static str, String)> {
        let mut files = Vec::new();
        if let Some(bytes) = self.memory_bytes {
            files.push(("memory", "memory.max", bytes.to_string()));
            // As the kubelet: a container has no swap, and one that is out of memory ends as a whole.
            files.push(("memory", "memory.swap.max", "0".to_owned()));
            files.push(("memory", "memory.oom.group", "1".to_owned()));
        }
        if let Some(millis) = self.cpu_millis {
            let quota = (millis * CPU_PERIOD_MICROS / 1000).max(CPU_QUOTA_MIN_MICROS);
            files.push(("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_MICROS}")));
        }
        if let Some(millis) = self.cpu_request_millis {
            // Shares of cgroup v1 (2 to 262144), of which Kubernetes gives 1024 for a CPU, as weights (1 to 10000).
            let shares = (millis * 1024 / 1000).clamp(2, 262_144);
            files.push(("cpu", "cpu.weight", (1 + (shares - 2) * 9999 / 262_142).to_string()));
        }
        files
    }

    /// Puts the limits in force, as far as there are controllers for them.
    pub fn apply(self, cgroup: &Cgroup, controllers: &[&'static str]) -> Result<(), CgroupError> {
        for (controller, file, text) in self.files() {
            if controllers.contains(&controller) {
                cgroup.set(file, &text)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn files(resources: Value) -> Vec<String> {
        let container = serde_json::from_value(json!({"name": "c", "resources": resources})).unwrap();
        Limits::of(&container).files().into_iter().map(|(_, file, text)| format!("{file} {text}")).collect()
    }

    #[test]
    fn limits_are_told_as_the_kubelet_tells_them() {
        assert_eq!(files(json!({})), Vec::<String>::new());
        assert_eq!(
            files(json!({"limits": {"memory": "64Mi", "cpu": "250m"}, "requests": {"cpu": "1"}})),
            ["memory.max 67108864", "memory.swap.max 0", "memory.oom.group 1", "cpu.max 25000 100000", "cpu.weight 39"]
        );
        assert_eq!(
            files(json!({"limits": {"cpu": "1m"}, "requests": {"cpu": "1m"}})),
            ["cpu.max 1000 100000", "cpu.weight 1"]
        );
    }
}
