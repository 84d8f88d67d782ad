//! Which pods should be on this node, from the API's watch; each has a worker of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Agent;
use super::pod::{self, Desired};

/// Kubernetes' default, for pods that say nothing.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// The pods' workers, by uid.
#[derive(Default)]
pub(super) struct Workers {
    running: Mutex<BTreeMap<String, Worker>>,
    tasks: TaskTracker,
    abandoned: CancellationToken,
}

struct Worker {
    desired: watch::Sender<Desired>,
    /// The grace period the deadline was computed from.
    grace: Option<i64>,
}

pub(super) async fn watch(agent: Arc<Agent>) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", agent.node_name));
    let events = watcher(Api::<Pod>::all(agent.client.clone()), config).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.insert(pod.uid().unwrap_or_default());
                apply(&agent, pod);
            }
            Ok(Event::InitDone) => agent.workers.keep_only(&listed),
            Ok(Event::Apply(pod)) => apply(&agent, pod),
            Ok(Event::Delete(pod)) => agent.workers.gone(&pod.uid().unwrap_or_default()),
            Err(error) => tracing::debug!(%error, "the node's watch of pods was interrupted"),
        }
    }
}

fn apply(agent: &Arc<Agent>, pod: Pod) {
    let uid = pod.uid().unwrap_or_default();
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let grace =
        pod.metadata.deletion_grace_period_seconds.or_else(|| pod.spec.as_ref()?.termination_grace_period_seconds);
    let grace = grace.unwrap_or(DEFAULT_GRACE_SECONDS).max(0);
    let pod = Arc::new(pod);
    let mut running = agent.workers.running();
    if let Some(worker) = running.get_mut(&uid) {
        let previous = worker.desired.borrow().clone();
        let desired = match previous {
            Desired::Gone | Desired::Shutdown { .. } => return,
            Desired::Evicted(_) if !leaving => Desired::Evicted(pod),
            Desired::Delete { deadline, .. } if worker.grace == Some(grace) => Desired::Delete { pod, deadline },
            _ if leaving => {
                worker.grace = Some(grace);
                Desired::Delete { pod, deadline: deadline(grace) }
            }
            _ => Desired::Run(pod),
        };
        worker.desired.send_replace(desired);
        return;
    }
    let over = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    if !leaving && matches!(over, Some("Succeeded" | "Failed")) {
        return;
    }
    // A pod that is leaving already is given no time: there is nothing of it on this machine.
    let first = if leaving {
        Desired::Delete { pod: Arc::clone(&pod), deadline: Instant::now() }
    } else {
        Desired::Run(Arc::clone(&pod))
    };
    let (desired, wanted) = watch::channel(first);
    running.insert(uid.clone(), Worker { desired, grace: leaving.then_some(grace) });
    let agent_of_worker = Arc::clone(agent);
    let abandoned = agent.workers.abandoned.clone();
    agent.workers.tasks.spawn(abandoned.run_until_cancelled_owned(async move {
        pod::run(Arc::clone(&agent_of_worker), pod, wanted).await;
        agent_of_worker.workers.running().remove(&uid);
    }));
}

fn deadline(grace_seconds: i64) -> Instant {
    Instant::now() + Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0))
}

impl Workers {
    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Worker>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self, uid: &str) {
        if let Some(worker) = self.running().get(uid) {
            worker.desired.send_replace(Desired::Gone);
        }
    }

    /// Ends a pod at once that takes more than it may.
    pub fn evict(&self, uid: &str) {
        if let Some(worker) = self.running().get(uid) {
            worker.desired.send_modify(|desired| {
                if let Desired::Run(pod) = desired {
                    *desired = Desired::Evicted(Arc::clone(pod));
                }
            });
        }
    }

    /// After a new list, what it does not name is gone.
    fn keep_only(&self, listed: &BTreeSet<String>) {
        for (_, worker) in self.running().iter().filter(|(uid, _)| !listed.contains(*uid)) {
            worker.desired.send_replace(Desired::Gone);
        }
    }

    /// Lets go of all pods as they are. No container is started any more.
    pub fn abandon(&self) {
        self.abandoned.cancel();
    }

    /// Ends all pods and waits until nothing of them is left.
    pub async fn shutdown(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        for worker in self.running().values() {
            worker.desired.send_replace(Desired::Shutdown { deadline });
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}
