//! What a Deployment says about its rollout. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::rollout::Limits;

/// Without `progressDeadlineSeconds`.
const DEFAULT_DEADLINE_SECONDS: i32 = 600;

/// The sums of ReplicaSets' numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    replicas: i32,
    updated: i32,
    ready: i32,
    available: i32,
    terminating: i32,
}

/// The status of `deployment`, whose current template is `new`'s, and when to look again if nothing happens.
pub(super) fn status(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let spec = &deployment.spec;
    let sums = sums(new, old);
    let desired = spec.replicas.unwrap_or(1);
    let rolling = spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let limits = Limits::new(
        desired,
        rolling.and_then(|r| r.max_surge.as_ref()),
        rolling.and_then(|r| r.max_unavailable.as_ref()),
    );
    let enough = sums.available >= desired - limits.map_or(0, |l| l.max_unavailable);
    let complete = sums.updated == desired && sums.replicas == desired && sums.available >= desired;
    let set = new.map(ResourceExt::name_any).unwrap_or_default();

    let mut conditions = Conditions { before: deployment, now, list: Vec::new() };
    if enough {
        conditions.add("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", false);
    } else {
        let message = "Deployment does not have minimum availability.";
        conditions.add("Available", "False", "MinimumReplicasUnavailable", message, false);
    }
    let progressed = progressed(deployment.status.as_ref(), sums);
    let deadline = Duration::from_secs(
        spec.progress_deadline_seconds.unwrap_or(DEFAULT_DEADLINE_SECONDS).try_into().unwrap_or(u64::MAX),
    );
    let mut look_again = None;
    if spec.paused == Some(true) {
        conditions.add("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", false);
    } else if complete {
        let message = format!("ReplicaSet \"{set}\" has successfully progressed.");
        conditions.add("Progressing", "True", "NewReplicaSetAvailable", &message, false);
    } else {
        let idle = if progressed { Duration::ZERO } else { conditions.age("Progressing") };
        if idle >= deadline || (!progressed && conditions.has("Progressing", "ProgressDeadlineExceeded")) {
            let message = format!("ReplicaSet \"{set}\" has timed out progressing.");
            conditions.add("Progressing", "False", "ProgressDeadlineExceeded", &message, false);
        } else {
            look_again = Some(deadline.saturating_sub(idle));
            let message = format!("ReplicaSet \"{set}\" is progressing.");
            conditions.add("Progressing", "True", "ReplicaSetUpdated", &message, progressed);
        }
    }
    let status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: Some(sums.replicas),
        updated_replicas: Some(sums.updated),
        ready_replicas: Some(sums.ready),
        available_replicas: Some(sums.available),
        unavailable_replicas: Some((sums.replicas.max(desired) - sums.available).max(0)),
        terminating_replicas: Some(sums.terminating),
        conditions: Some(conditions.list),
        collision_count: deployment.status.as_ref().and_then(|s| s.collision_count),
    };
    (status, look_again)
}

fn sums(new: Option<&ReplicaSet>, old: &[ReplicaSet]) -> Sums {
    let mut sums =
        Sums { updated: new.and_then(|set| set.status.as_ref()).map_or(0, |s| s.replicas), ..Sums::default() };
    for status in old.iter().chain(new).filter_map(|set| set.status.as_ref()) {
        sums.replicas += status.replicas;
        sums.ready += status.ready_replicas.unwrap_or(0);
        sums.available += status.available_replicas.unwrap_or(0);
        sums.terminating += status.terminating_replicas.unwrap_or(0);
    }
    sums
}

/// Whether more pods are new, fewer are old, or more of them serve than before.
fn progressed(before: Option<&DeploymentStatus>, now: Sums) -> bool {
    let Some(before) = before else { return true };
    let number = |field: Option<i32>| field.unwrap_or(0);
    let old_before = number(before.replicas) - number(before.updated_replicas);
    now.updated > number(before.updated_replicas)
        || now.replicas - now.updated < old_before
        || now.ready > number(before.ready_replicas)
        || now.available > number(before.available_replicas)
}

/// Conditions being gathered; those that stay as they were keep their times.
struct Conditions<'a> {
    before: &'a Deployment,
    now: Timestamp,
    list: Vec<DeploymentCondition>,
}

impl Conditions<'_> {
    fn known(&self, kind: &str) -> Option<&DeploymentCondition> {
        let conditions = self.before.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_.as_deref() == Some(kind))
    }

    fn has(&self, kind: &str, reason: &str) -> bool {
        self.known(kind).is_some_and(|c| c.reason.as_deref() == Some(reason))
    }

    /// How long ago the condition was last brought up to date.
    fn age(&self, kind: &str) -> Duration {
        let updated = self.known(kind).and_then(|c| c.last_update_time.as_ref()).map_or(self.now, |t| t.0);
        Duration::try_from(self.now.duration_since(updated)).unwrap_or_default()
    }

    fn add(&mut self, kind: &str, status: &str, reason: &str, message: &str, touched: bool) {
        let same_status = self.known(kind).filter(|c| c.status.as_deref() == Some(status));
        let same = same_status
            .filter(|c| c.reason.as_deref() == Some(reason) && c.message.as_deref() == Some(message) && !touched);
        let condition = DeploymentCondition {
            last_transition_time: same_status.and_then(|c| c.last_transition_time.clone()).or(Some(Time(self.now))),
            last_update_time: same.and_then(|c| c.last_update_time.clone()).or(Some(Time(self.now))),
            type_: Some(kind.to_owned()),
            status: Some(status.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
        };
        self.list.push(condition);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn deployment(status: Option<DeploymentStatus>) -> Deployment {
        let mut deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "web", "generation": 2},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {}}}))
        .unwrap();
        deployment.status = status;
        deployment
    }

    fn set(replicas: i32, available: i32) -> ReplicaSet {
        serde_json::from_value(json!({"metadata": {"name": "web-1"}, "spec": {"selector": {}},
            "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available}}))
        .unwrap()
    }

    fn progressing(status: &DeploymentStatus) -> String {
        let conditions = status.conditions.as_ref().unwrap();
        let found = conditions.iter().find(|c| c.type_.as_deref() == Some("Progressing")).unwrap();
        found.reason.clone().unwrap()
    }

    #[test]
    fn a_rollout_that_stands_still_exceeds_its_deadline_and_recovers() {
        let (first, wait) = status(&deployment(None), Some(&set(2, 0)), &[], at(0));
        assert_eq!((progressing(&first).as_str(), wait), ("ReplicaSetUpdated", Some(Duration::from_secs(60))));
        let (still, wait) = status(&deployment(Some(first)), Some(&set(2, 0)), &[], at(40));
        assert_eq!((progressing(&still).as_str(), wait), ("ReplicaSetUpdated", Some(Duration::from_secs(20))));
        let (late, wait) = status(&deployment(Some(still)), Some(&set(2, 0)), &[], at(60));
        assert_eq!((progressing(&late).as_str(), wait), ("ProgressDeadlineExceeded", None));
        let (moving, wait) = status(&deployment(Some(late)), Some(&set(2, 1)), &[], at(90));
        assert_eq!((progressing(&moving).as_str(), wait), ("ReplicaSetUpdated", Some(Duration::from_secs(60))));
        let (done, wait) = status(&deployment(Some(moving)), Some(&set(2, 2)), &[], at(91));
        assert_eq!((progressing(&done).as_str(), wait), ("NewReplicaSetAvailable", None));
    }

    #[test]
    fn a_status_that_says_the_same_is_the_same() {
        let (first, _) = status(&deployment(None), Some(&set(2, 2)), &[], at(0));
        let (second, _) = status(&deployment(Some(first.clone())), Some(&set(2, 2)), &[], at(500));
        assert_eq!(first, second);
        assert_eq!((second.unavailable_replicas, second.observed_generation), (Some(0), Some(2)));
    }
}
