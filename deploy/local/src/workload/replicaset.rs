//! ReplicaSet → Pods.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::owned::is_controlled_by;
use super::pods::{available_in, from_template, is_finished, is_ready};
use super::{Context, ReconcileError};

pub(super) async fn reconcile(set: Arc<ReplicaSet>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    let spec = &set.spec;
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &set.namespace().unwrap_or_default());
    let mut pods = api.list(&ListParams::default()).await?.items;
    pods.retain(|pod| is_controlled_by(pod, set.as_ref()) && !is_finished(pod));
    let (mut active, leaving): (Vec<_>, Vec<_>) =
        pods.into_iter().partition(|pod| pod.metadata.deletion_timestamp.is_none());

    let mut refused = None;
    if set.metadata.deletion_timestamp.is_none() {
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let template = spec.template.clone().unwrap_or_default();
        while active.len() < wanted {
            let mut pod = from_template(set.as_ref(), &template);
            pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
            match api.create(&PostParams::default(), &pod).await {
                Ok(pod) => active.push(pod),
                Err(error) => {
                    let message = format!("Error creating: {}", crate::refusal::sentence(&error));
                    ctx.events.warn(set.as_ref(), "FailedCreate", &message);
                    refused = Some(error);
                    break;
                }
            }
        }
        // Those that serve least go first: not ready before ready, then the youngest.
        active.sort_by_key(|pod| (std::cmp::Reverse(is_ready(pod)), pod.creation_timestamp()));
        for pod in active.split_off(wanted.min(active.len())) {
            match api.delete(&pod.name_any(), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    let min_ready = Duration::from_secs(spec.min_ready_seconds.unwrap_or(0).try_into().unwrap_or(0));
    let now = Timestamp::now();
    let waits: Vec<_> = active.iter().filter_map(|pod| available_in(pod, min_ready, now)).collect();
    let available = waits.iter().filter(|wait| wait.is_zero()).count();
    let next = waits.iter().filter(|wait| !wait.is_zero()).min();
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.len())),
        ready_replicas: Some(count(active.iter().filter(|pod| is_ready(pod)).count())),
        available_replicas: Some(count(available)),
        terminating_replicas: Some(count(leaving.len())),
        observed_generation: set.metadata.generation,
        conditions: None,
    };
    if set.status.as_ref() != Some(&status) {
        let api: Api<ReplicaSet> = Api::namespaced(ctx.client.clone(), &set.namespace().unwrap_or_default());
        match api.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await
        {
            Ok(_) => {}
            // Gone meanwhile: its pods' deletion brings nothing new.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    match (refused, next) {
        (Some(error), _) => Err(error.into()),
        (None, Some(wait)) => Ok(Action::requeue(*wait)),
        (None, None) => Ok(Action::await_change()),
    }
}
