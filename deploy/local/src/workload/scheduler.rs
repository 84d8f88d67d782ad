//! The scheduler: there is one node, so the only question is whether a pod may run on it.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::pods::condition;
use crate::tasks::Tasks;

pub(super) fn start(client: &Client, node_name: &str, tasks: &Tasks) {
    let (client, node_name) = (client.clone(), node_name.to_owned());
    tasks.spawn(async move {
        let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
        let mut pods = std::pin::pin!(pods.default_backoff().applied_objects());
        while let Some(pod) = pods.next().await {
            let Ok(pod) = pod else { continue };
            if let Err(error) = place(&client, &node_name, &pod).await {
                tracing::warn!(pod = pod.name_any(), %error, "cannot bind the pod to the node");
            }
        }
    });
}

async fn place(client: &Client, node_name: &str, pod: &Pod) -> Result<(), kube::Error> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    let ours = spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler");
    if spec.node_name.is_some() || pod.metadata.deletion_timestamp.is_some() || gated || !ours {
        return Ok(());
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    if let Some((key, value)) =
        spec.node_selector.iter().flatten().find(|(key, value)| !node_has(node_name, key, value))
    {
        if condition(pod, "PodScheduled").is_some_and(|c| c.status == "False") {
            return Ok(());
        }
        let message = format!(
            "0/1 nodes are available: spec.nodeSelector asks for {key}={value}, which node {node_name} does not have"
        );
        let unschedulable = json!({"status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}});
        api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(unschedulable)).await?;
        return Ok(());
    }
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
            name: Some(node_name.to_owned()),
            ..ObjectReference::default()
        },
    };
    let bound = api.create_subresource("binding", &pod.name_any(), &PostParams::default(), &binding).await;
    match bound.map(|_: serde_json::Value| ()) {
        Ok(()) => Ok(()),
        // Bound or gone meanwhile.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error),
    }
}

fn node_has(node_name: &str, key: &str, value: &str) -> bool {
    crate::node::labels(node_name).get(key).is_some_and(|v| v == value)
}
