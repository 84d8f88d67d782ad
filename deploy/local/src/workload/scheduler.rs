//! The scheduler: gives every pod that has none a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::placement::{Placed, choose};
use super::pods::{condition, is_finished};
use crate::informer::Informer;
use crate::tasks::Tasks;

struct Scheduler {
    client: Client,
    nodes: Informer<Node>,
    pods: Store<Pod>,
    /// Bound by us, by uid: the watch may not have said so yet.
    bound: BTreeMap<String, Placed>,
}

pub(super) fn start(client: &Client, nodes: &Informer<Node>, tasks: &Tasks) {
    let (client, nodes) = (client.clone(), nodes.clone());
    tasks.spawn(async move {
        let (pods, writer) = reflector::store();
        let changes = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
        let mut changes = std::pin::pin!(reflector::reflector(writer, changes).default_backoff().applied_objects());
        let mut nodes_changed = nodes.changes();
        let mut scheduler = Scheduler { client, nodes, pods, bound: BTreeMap::new() };
        loop {
            tokio::select! {
                pod = changes.next() => match pod {
                    Some(Ok(pod)) => scheduler.consider(&pod).await,
                    Some(Err(error)) => tracing::debug!(%error, "the scheduler's watch was interrupted"),
                    None => return,
                },
                // What fitted nowhere may fit now.
                changed = nodes_changed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    for pod in scheduler.pods.state() {
                        scheduler.consider(&pod).await;
                    }
                }
            }
        }
    });
}

impl Scheduler {
    async fn consider(&mut self, pod: &Pod) {
        let uid = pod.uid().unwrap_or_default();
        let Some(spec) = &pod.spec else { return };
        if spec.node_name.is_some() {
            self.bound.remove(&uid);
            return;
        }
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler");
        if pod.metadata.deletion_timestamp.is_some() || gated || !ours || self.bound.contains_key(&uid) {
            return;
        }
        match self.place(pod).await {
            Ok(Some(node)) => {
                self.bound.insert(uid, Placed { pod: Arc::new(pod.clone()), node });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(pod = pod.name_any(), %error, "cannot bind the pod to a node"),
        }
    }

    /// Binds the pod. Gives the node, if one fits and the pod is still there to be bound.
    async fn place(&self, pod: &Pod) -> Result<Option<String>, kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let node = match choose(pod, &self.nodes.store.state(), &self.placed()) {
            Ok(node) => node,
            Err(message) => {
                let told = condition(pod, "PodScheduled");
                if told.is_none_or(|c| c.status != "False" || c.message.as_ref() != Some(&message)) {
                    let unschedulable = json!({"status": {"conditions": [
                        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}});
                    let patch = Patch::Strategic(unschedulable);
                    api.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await?;
                }
                return Ok(None);
            }
        };
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name_any()),
                namespace: pod.namespace(),
                uid: pod.uid(),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.clone()),
                ..ObjectReference::default()
            },
        };
        let bound = api.create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding).await;
        match bound.map(|_: serde_json::Value| ()) {
            Ok(()) => Ok(Some(node)),
            // Bound or gone meanwhile.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn placed(&self) -> Vec<Placed> {
        let known = self.pods.state().into_iter().filter(|pod| !is_finished(pod));
        let known = known.filter_map(|pod| Some(Placed { node: pod.spec.as_ref()?.node_name.clone()?, pod }));
        known.chain(self.bound.values().cloned()).collect()
    }
}
