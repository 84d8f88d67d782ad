//! Carrying a pod's status to the API, whenever it changes.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Agent;
use super::pod::Desired;
use super::status::{Board, own_condition};

/// After a refusal that isn't the pod's disappearance.
const RETRY: Duration = Duration::from_secs(1);

/// The task that publishes. [`Publisher::stop`] lets it say the last word first.
pub(super) struct Publisher {
    finish: watch::Sender<bool>,
    task: JoinHandle<()>,
}

pub(super) fn start(
    agent: &Arc<Agent>,
    pod: &Arc<Pod>,
    desired: &watch::Receiver<Desired>,
    board: &watch::Sender<Board>,
) -> Publisher {
    let (finish, finished) = watch::channel(false);
    let task = tokio::spawn(publish(Arc::clone(agent), Arc::clone(pod), desired.clone(), board.subscribe(), finished));
    Publisher { finish, task }
}

impl Publisher {
    pub async fn stop(self) {
        self.finish.send_replace(true);
        self.task.await.ok();
    }
}

async fn publish(
    agent: Arc<Agent>,
    first: Arc<Pod>,
    desired: watch::Receiver<Desired>,
    mut board: watch::Receiver<Board>,
    mut finished: watch::Receiver<bool>,
) {
    let api: Api<Pod> = Api::namespaced(agent.client.clone(), &first.namespace().unwrap_or_default());
    let mut latest = first;
    let mut said: Option<PodStatus> = None;
    loop {
        let last_word = *finished.borrow_and_update();
        let seen = board.borrow_and_update().clone();
        if let Desired::Run(pod) | Desired::Evicted(pod) | Desired::Delete { pod, .. } = &*desired.borrow() {
            latest = Arc::clone(pod);
        }
        // Our own last words are newer than what the watch has brought back.
        let mut known = Pod::clone(&latest);
        if let (Some(said), Some(status)) = (&said, &mut known.status) {
            status.conditions.clone_from(&merged(said, status));
        }
        let status = seen.status(&known, Timestamp::now());
        if said.as_ref() != Some(&status) {
            match api
                .patch_status(&latest.name_any(), &PatchParams::default(), &Patch::Merge(patch(&latest, &status)))
                .await
            {
                Ok(_) => said = Some(status),
                Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => return,
                Err(error) => {
                    tracing::debug!(pod = latest.name_any(), %error, "status not published; trying again");
                    if !last_word {
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
        }
        if last_word {
            return;
        }
        tokio::select! {
            changed = board.changed() => if changed.is_err() { return },
            _ = finished.changed() => {}
        }
    }
}

/// Own conditions as published last, others as the API has them.
fn merged(said: &PodStatus, api: &PodStatus) -> Option<Vec<k8s_openapi::api::core::v1::PodCondition>> {
    let own = said.conditions.iter().flatten().filter(|c| own_condition(&c.type_));
    let foreign = api.conditions.iter().flatten().filter(|c| !own_condition(&c.type_));
    Some(own.chain(foreign).cloned().collect())
}

/// A merge patch: what the node no longer says is taken out. The uid keeps it from a later pod of the same name.
fn patch(pod: &Pod, status: &PodStatus) -> Value {
    let mut status = json!(status);
    for field in ["podIP", "podIPs", "containerStatuses", "initContainerStatuses"] {
        status.as_object_mut().map(|status| status.entry(field).or_insert(Value::Null));
    }
    json!({"metadata": {"uid": pod.uid()}, "status": status})
}
