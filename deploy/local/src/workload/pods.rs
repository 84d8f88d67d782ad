//! What a controller may conclude from a pod's status.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};

use super::owned::controlled_by;

/// The condition of a type, if the pod has it.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// How long until a ready pod counts as available; zero when it does already, `None` when it isn't ready.
pub(super) fn available_in(pod: &Pod, min_ready: Duration, now: Timestamp) -> Option<Duration> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    let since = ready.last_transition_time.as_ref().map_or(now, |t| t.0);
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(min_ready.saturating_sub(age))
}

/// Ended for good: such a pod is no replica any more.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A pod made from `template` for `owner`, without a name.
pub(super) fn from_template<K: Resource<DynamicType = ()>>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        namespace: owner.namespace(),
        labels: from.labels,
        annotations: from.annotations,
        finalizers: from.finalizers,
        owner_references: Some(vec![controlled_by(owner)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_becomes_available_when_it_has_been_ready_for_long_enough() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let min_ready = Duration::from_secs(10);
        assert_eq!(available_in(&pod, min_ready, at("2026-01-01T00:00:04Z")), Some(Duration::from_secs(6)));
        assert_eq!(available_in(&pod, min_ready, at("2026-01-01T00:00:30Z")), Some(Duration::ZERO));
        assert_eq!(available_in(&Pod::default(), min_ready, at("2026-01-01T00:00:30Z")), None);
    }
}
