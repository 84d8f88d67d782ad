//! What a Job needs next, from its pods. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::pods::{is_finished, is_ready};

/// Names a pod's place in an indexed Job, as label and annotation.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// After the first failure; it doubles with every further one. Kubernetes' own is ten times as long.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// The next steps.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// A pod for each; with its index in an indexed Job.
    pub create: Vec<Option<i32>>,
    /// Names of pods that are no longer wanted.
    pub delete: Vec<String>,
    pub status: JobStatus,
    /// When to look again if nothing happens.
    pub look_again: Option<Duration>,
    /// The Job has been finished for as long as it wanted to be kept.
    pub forget: bool,
}

/// The end of a Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Failed { reason: &'static str, message: &'static str },
}

pub(super) fn plan(job: &Job, pods: &[Pod], now: Timestamp) -> Plan {
    let spec = job.spec.clone().unwrap_or_default();
    let before = job.status.clone().unwrap_or_default();
    if let Some(wait) = finished_for(&before, now) {
        return after_the_end(&spec, before, wait);
    }
    let suspended = spec.suspend == Some(true);
    let indexed = spec.completion_mode.as_deref() == Some("Indexed");
    let phase = |pod: &Pod, wanted: &str| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(wanted);
    let leaving = |pod: &&Pod| pod.metadata.deletion_timestamp.is_some();
    let succeeded: Vec<&Pod> = pods.iter().filter(|p| phase(p, "Succeeded")).collect();
    // A pod deleted before it ended counts as failed once it is gone, as far as it can still be seen.
    let failed: Vec<&Pod> = pods.iter().filter(|p| phase(p, "Failed")).collect();
    let (terminating, active): (Vec<&Pod>, Vec<&Pod>) = pods.iter().filter(|p| !is_finished(p)).partition(leaving);

    let done_indexes: BTreeSet<i32> = succeeded.iter().filter_map(|p| index_of(p)).collect();
    let done = if indexed { done_indexes.len() } else { succeeded.len() };
    let started = before.start_time.clone().or((!suspended).then_some(Time(now)));
    let mut plan = Plan::default();
    let end = end(&spec, started.as_ref(), &active, done, &failed, now);
    let mut status = JobStatus { start_time: started, ..before.clone() };
    if end.is_some() || suspended {
        plan.delete = active.iter().map(|pod| pod.name_any()).collect();
    } else {
        let wanted = wanted_pods(&spec, done);
        let mut active = active.clone();
        // The youngest go first.
        active.sort_by_key(|pod| (std::cmp::Reverse(is_ready(pod)), pod.creation_timestamp()));
        plan.delete = active.split_off(wanted.min(active.len())).iter().map(|pod| pod.name_any()).collect();
        let missing = wanted.saturating_sub(active.len() + terminating.len());
        let wait = backoff(&failed, now);
        if missing > 0 && !wait.is_zero() {
            plan.look_again = Some(wait);
        } else if indexed {
            let taken: BTreeSet<i32> = active.iter().chain(&terminating).filter_map(|p| index_of(p)).collect();
            let free = (0..spec.completions.unwrap_or(0)).filter(|i| !done_indexes.contains(i) && !taken.contains(i));
            plan.create = free.take(missing).map(Some).collect();
        } else {
            plan.create = vec![None; missing];
        }
    }
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let running = (active.len() - plan.delete.len()) + plan.create.len();
    status.active = Some(count(running)).filter(|n| *n > 0);
    status.ready = Some(count(active.iter().filter(|p| is_ready(p)).count()));
    status.terminating = Some(count(terminating.len() + plan.delete.len()));
    status.succeeded = Some(count(done)).filter(|n| *n > 0);
    status.failed = Some(count(failed.len())).filter(|n| *n > 0);
    status.completed_indexes = (indexed && !done_indexes.is_empty()).then(|| ranges(&done_indexes));
    if suspended {
        status.start_time = None;
    }
    let mut conditions = Conditions { list: before.conditions.unwrap_or_default(), now };
    conditions.suspend(suspended);
    match end {
        // Kubernetes says first that the end is decided, and that it has come when no pod is left.
        Some(End::Complete) => {
            conditions.set("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods");
            if running == 0 && status.terminating == Some(0) {
                conditions.set("Complete", "CompletionsReached", "Reached expected number of succeeded pods");
                status.completion_time = Some(Time(now));
            }
        }
        Some(End::Failed { reason, message }) => {
            conditions.set("FailureTarget", reason, message);
            if running == 0 && status.terminating == Some(0) {
                conditions.set("Failed", reason, message);
            }
        }
        None => {}
    }
    status.conditions = (!conditions.list.is_empty()).then_some(conditions.list);
    if let Some(left) = deadline(&spec, status.start_time.as_ref(), now).filter(|_| end.is_none()) {
        plan.look_again = Some(plan.look_again.map_or(left, |other| other.min(left)));
    }
    plan.status = status;
    plan
}

fn after_the_end(spec: &JobSpec, status: JobStatus, ended_for: Duration) -> Plan {
    let keep = spec.ttl_seconds_after_finished.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    let left = keep.map(|keep| keep.saturating_sub(ended_for));
    Plan { status, forget: left == Some(Duration::ZERO), look_again: left, ..Plan::default() }
}

/// How long ago the Job ended; `None` while it has not.
fn finished_for(status: &JobStatus, now: Timestamp) -> Option<Duration> {
    let ended = |c: &&JobCondition| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True";
    let condition = status.conditions.iter().flatten().find(ended)?;
    let since = condition.last_transition_time.as_ref().map_or(now, |t| t.0);
    Some(Duration::try_from(now.duration_since(since)).unwrap_or_default())
}

/// Whether the Job has come to its end, and to which.
fn end(
    spec: &JobSpec,
    started: Option<&Time>,
    active: &[&Pod],
    done: usize,
    failed: &[&Pod],
    now: Timestamp,
) -> Option<End> {
    let restarts: i32 = active.iter().map(|pod| restarts(pod)).sum();
    let failures = i64::try_from(failed.len()).unwrap_or(i64::MAX) + i64::from(restarts);
    if failures > i64::from(spec.backoff_limit.unwrap_or(6)) {
        let message = "Job has reached the specified backoff limit";
        return Some(End::Failed { reason: "BackoffLimitExceeded", message });
    }
    if deadline(spec, started, now) == Some(Duration::ZERO) {
        let message = "Job was active longer than specified deadline";
        return Some(End::Failed { reason: "DeadlineExceeded", message });
    }
    let complete = match spec.completions {
        Some(wanted) => done >= usize::try_from(wanted).unwrap_or(0),
        // A work queue: one success says that the work is done; the others may finish theirs.
        None => done > 0 && active.is_empty(),
    };
    complete.then_some(End::Complete)
}

/// How many pods should be at work.
fn wanted_pods(spec: &JobSpec, done: usize) -> usize {
    let parallel = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    match spec.completions {
        Some(wanted) => parallel.min(usize::try_from(wanted).unwrap_or(0).saturating_sub(done)),
        None if done > 0 => 0,
        None => parallel,
    }
}

/// The time left until the Job's deadline; zero when it has passed.
fn deadline(spec: &JobSpec, started: Option<&Time>, now: Timestamp) -> Option<Duration> {
    let limit = Duration::from_secs(u64::try_from(spec.active_deadline_seconds?).unwrap_or(0));
    let age = Duration::try_from(now.duration_since(started?.0)).unwrap_or_default();
    Some(limit.saturating_sub(age))
}

/// The time until the next attempt may begin after these failures.
fn backoff(failed: &[&Pod], now: Timestamp) -> Duration {
    let Some(last) = failed.iter().filter_map(|pod| finished_at(pod)).max() else { return Duration::ZERO };
    let doublings = u32::try_from(failed.len() - 1).unwrap_or(u32::MAX).min(10);
    let pause = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_BACKOFF);
    pause.saturating_sub(Duration::try_from(now.duration_since(last)).unwrap_or_default())
}

fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ends = statuses.iter().filter_map(|s| s.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|t| t.0).max()
}

fn restarts(pod: &Pod) -> i32 {
    let Some(status) = &pod.status else { return 0 };
    // A sidecar's restarts are its own business.
    status.container_statuses.iter().flatten().map(|s| s.restart_count).sum()
}

fn index_of(pod: &Pod) -> Option<i32> {
    pod.labels().get(INDEX)?.parse().ok()
}

/// `0,2-4,7`
fn ranges(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => parts.push((*index, *index)),
        }
    }
    let shown = parts.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

struct Conditions {
    list: Vec<JobCondition>,
    now: Timestamp,
}

impl Conditions {
    fn set(&mut self, kind: &str, reason: &str, message: &str) {
        self.put(kind, "True", reason, message);
    }

    fn suspend(&mut self, suspended: bool) {
        if suspended {
            self.put("Suspended", "True", "JobSuspended", "Job suspended");
        } else if self.list.iter().any(|c| c.type_ == "Suspended") {
            self.put("Suspended", "False", "JobResumed", "Job resumed");
        }
    }

    fn put(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        if self.list.iter().any(|c| c.type_ == kind && c.status == status) {
            return;
        }
        self.list.retain(|c| c.type_ != kind);
        self.list.push(JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn job(spec: Value, status: Option<JobStatus>) -> Job {
        let mut job: Job =
            serde_json::from_value(json!({"metadata": {"name": "sum", "uid": "u"}, "spec": spec})).unwrap();
        job.status = status;
        job
    }

    fn spec(completions: i32, parallelism: i32) -> Value {
        json!({"completions": completions, "parallelism": parallelism, "backoffLimit": 2, "template": {}})
    }

    fn pod(name: &str, phase: &str, index: Option<i32>, ended: i64) -> Pod {
        let labels = index.map(|i| json!({INDEX: i.to_string()}));
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": {"phase": phase,
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "finishedAt": at(ended).to_string()}}}]}}))
        .unwrap()
    }

    fn has(status: &JobStatus, kind: &str) -> bool {
        status.conditions.iter().flatten().any(|c| c.type_ == kind && c.status == "True")
    }

    #[test]
    fn pods_are_made_up_to_the_parallelism_and_what_is_left_to_do() {
        let first = plan(&job(spec(3, 2), None), &[], at(0));
        assert_eq!((first.create.len(), first.status.active), (2, Some(2)));
        let pods = [pod("a", "Succeeded", None, 1), pod("b", "Succeeded", None, 1)];
        let next = plan(&job(spec(3, 2), Some(first.status)), &pods, at(2));
        assert_eq!((next.create.len(), next.status.succeeded, has(&next.status, "Complete")), (1, Some(2), false));
        let pods = [pods[0].clone(), pods[1].clone(), pod("c", "Succeeded", None, 3)];
        let last = plan(&job(spec(3, 2), Some(next.status)), &pods, at(4));
        assert!(last.create.is_empty() && has(&last.status, "Complete") && last.status.active.is_none());
        assert_eq!(last.status.completion_time.as_ref().unwrap().0, at(4));
    }

    #[test]
    fn failures_are_tried_again_after_a_pause_until_the_limit() {
        let one = [pod("a", "Failed", None, 10)];
        let soon = plan(&job(spec(1, 1), None), &one, at(10));
        assert_eq!((soon.create.len(), soon.look_again), (0, Some(Duration::from_secs(1))));
        assert_eq!(plan(&job(spec(1, 1), None), &one, at(11)).create.len(), 1);
        let many = [pod("a", "Failed", None, 1), pod("b", "Failed", None, 2), pod("c", "Failed", None, 3)];
        let failed = plan(&job(spec(1, 1), None), &many, at(100));
        assert!(failed.create.is_empty() && has(&failed.status, "Failed") && has(&failed.status, "FailureTarget"));
    }

    #[test]
    fn an_indexed_job_makes_the_indexes_that_are_missing() {
        let mut spec = spec(6, 3);
        spec["completionMode"] = json!("Indexed");
        let pods: Vec<_> = [0, 1, 2, 4].map(|i| pod(&i.to_string(), "Succeeded", Some(i), 1)).into_iter().collect();
        let plan = plan(&job(spec, None), &pods, at(2));
        assert_eq!(plan.create, [Some(3), Some(5)]);
        assert_eq!(plan.status.completed_indexes.as_deref(), Some("0-2,4"));
    }

    #[test]
    fn a_deadline_or_a_suspension_ends_the_pods() {
        let mut with_deadline = spec(1, 1);
        with_deadline["activeDeadlineSeconds"] = json!(5);
        let running = [pod("a", "Running", None, 0)];
        let first = plan(&job(with_deadline.clone(), None), &running, at(0));
        assert_eq!((first.look_again, first.delete.len()), (Some(Duration::from_secs(5)), 0));
        let late = plan(&job(with_deadline, Some(first.status)), &running, at(5));
        assert_eq!((late.delete.len(), has(&late.status, "Failed")), (1, false));
        let mut suspended = spec(1, 1);
        suspended["suspend"] = json!(true);
        let plan = plan(&job(suspended, None), &running, at(0));
        assert!(plan.delete == ["a"] && has(&plan.status, "Suspended") && plan.status.start_time.is_none());
    }

    #[test]
    fn a_finished_job_goes_when_its_time_to_live_is_over() {
        let mut spec = spec(1, 1);
        spec["ttlSecondsAfterFinished"] = json!(10);
        let done = plan(&job(spec.clone(), None), &[pod("a", "Succeeded", None, 0)], at(1)).status;
        let kept = plan(&job(spec.clone(), Some(done.clone())), &[], at(5));
        assert_eq!((kept.forget, kept.look_again), (false, Some(Duration::from_secs(6))));
        assert!(plan(&job(spec, Some(done)), &[], at(11)).forget);
    }

    proptest! {
        /// Pods succeed one at a time, whatever the sizes: never more at work than allowed, and the Job completes.
        #[test]
        fn every_job_whose_pods_succeed_completes(completions in 1..10_i32, parallelism in 1..12_i32) {
            let (mut pods, mut status) = (Vec::new(), None);
            for step in 0..100 {
                let plan = plan(&job(spec(completions, parallelism), status), &pods, at(step));
                let fresh = plan.create.len();
                pods.extend((0..fresh).map(|n| pod(&format!("{step}-{n}"), "Running", None, 0)));
                let active = pods.iter().filter(|p| !is_finished(p)).count();
                prop_assert!(active <= usize::try_from(parallelism).unwrap());
                if let Some(pod) = pods.iter_mut().find(|p| !is_finished(p)) {
                    pod.status.as_mut().unwrap().phase = Some("Succeeded".into());
                }
                status = Some(plan.status);
            }
            let status = status.unwrap();
            prop_assert!(has(&status, "Complete"));
            prop_assert_eq!(status.succeeded, Some(completions));
            prop_assert_eq!(pods.len(), usize::try_from(completions).unwrap());
        }
    }
}
