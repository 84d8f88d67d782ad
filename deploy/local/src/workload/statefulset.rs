//! StatefulSet → Pods with stable names, made and replaced in order.
//!
//! Volume claims are not supported; a StatefulSet that asks for them is refused with an event.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::history::{self, REVISION};
use super::owned::is_controlled_by;
use super::pods::{from_template, is_finished, is_ready};
use super::{Context, ReconcileError};

pub(super) async fn reconcile(set: Arc<StatefulSet>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    let spec = &set.spec;
    if spec.volume_claim_templates.as_ref().is_some_and(|claims| !claims.is_empty()) {
        let why = "the local cluster has no persistent volumes; use an emptyDir or hostPath volume in the template";
        ctx.events.warn(set.as_ref(), "FailedCreate", &format!("spec.volumeClaimTemplates: {why}"));
        return Ok(Action::await_change());
    }
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &set.namespace().unwrap_or_default());
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    // Pods carry the name of the revision.
    let label = |hash: &str| format!("{}-{hash}", set.name_any());
    let version = history::record(&ctx.client, set.as_ref(), &spec.template, label).await?;
    let revision = version.label.clone();
    let mut pods: BTreeMap<i32, Pod> = BTreeMap::new();
    for pod in api.list(&ListParams::default()).await?.items {
        if let Some(ordinal) = ordinal(&set, &pod).filter(|_| is_controlled_by(&pod, set.as_ref())) {
            pods.insert(ordinal, pod);
        }
    }
    step(&set, spec, &api, &revision, &mut pods).await?;
    publish(&set, &ctx, &revision, &pods).await?;
    let in_use = |label: &str| pods.values().any(|pod| pod.labels().get(REVISION).is_some_and(|l| l == label));
    version.forget_old(&ctx.client, spec.revision_history_limit, in_use).await?;
    Ok(Action::await_change())
}

/// Does the next thing that may be done now. What it waits for is a pod's change, and that brings it back here.
async fn step(
    set: &StatefulSet,
    spec: &StatefulSetSpec,
    api: &Api<Pod>,
    revision: &str,
    pods: &mut BTreeMap<i32, Pod>,
) -> Result<(), ReconcileError> {
    let parallel = spec.pod_management_policy.as_deref() == Some("Parallel");
    let first = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let wanted = first..first + spec.replicas.unwrap_or(1);
    for ordinal in wanted.clone() {
        if let Some(pod) = pods.get(&ordinal) {
            if is_finished(pod) && pod.metadata.deletion_timestamp.is_none() {
                // It is made anew when it is gone.
                api.delete(&pod.name_any(), &DeleteParams::default()).await?;
                return Ok(());
            }
            let leaving = pod.metadata.deletion_timestamp.is_some();
            if !parallel && (leaving || !is_ready(pod)) && is_current(pod, revision) {
                return Ok(());
            }
            continue;
        }
        let made = api.create(&PostParams::default(), &pod(set, spec, ordinal, revision)).await?;
        pods.insert(ordinal, made);
        if !parallel {
            return Ok(());
        }
    }
    let surplus: Vec<_> = pods.iter().rev().filter(|(ordinal, _)| !wanted.contains(ordinal)).collect();
    for (_, pod) in surplus {
        if pod.metadata.deletion_timestamp.is_none() {
            api.delete(&pod.name_any(), &DeleteParams::default()).await?;
        }
        if !parallel {
            return Ok(());
        }
    }
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return Ok(());
    }
    let partition = strategy.and_then(|s| s.rolling_update.as_ref()).and_then(|r| r.partition).unwrap_or(0);
    for (_, pod) in pods.iter().rev().filter(|(ordinal, _)| wanted.contains(ordinal) && **ordinal >= partition) {
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        if !is_current(pod, revision) {
            api.delete(&pod.name_any(), &DeleteParams::default()).await?;
            return Ok(());
        }
        if !is_ready(pod) {
            return Ok(());
        }
    }
    Ok(())
}

async fn publish(
    set: &StatefulSet,
    ctx: &Context,
    revision: &str,
    pods: &BTreeMap<i32, Pod>,
) -> Result<(), ReconcileError> {
    let count =
        |keep: &dyn Fn(&Pod) -> bool| i32::try_from(pods.values().filter(|p| keep(p)).count()).unwrap_or(i32::MAX);
    let (replicas, updated) = (count(&|_| true), count(&|pod| is_current(pod, revision)));
    let before = set.status.as_ref().and_then(|s| s.current_revision.clone());
    let current = if updated == replicas { Some(revision.to_owned()) } else { before.or(Some(revision.to_owned())) };
    let ready = count(&is_ready);
    let status = StatefulSetStatus {
        replicas,
        ready_replicas: Some(ready),
        available_replicas: Some(ready),
        updated_replicas: Some(updated),
        current_replicas: Some(count(&|pod| current.as_deref().is_some_and(|current| is_current(pod, current)))),
        current_revision: current,
        update_revision: Some(revision.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count: Some(0),
        conditions: None,
    };
    if set.status.as_ref() != Some(&status) {
        let api: Api<StatefulSet> = Api::namespaced(ctx.client.clone(), &set.namespace().unwrap_or_default());
        match api.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn pod(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32, revision: &str) -> Pod {
    let mut pod = from_template(set, &spec.template);
    let name = format!("{}-{ordinal}", set.name_any());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION.to_owned(), revision.to_owned());
    labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
    if let Some(spec_of_pod) = &mut pod.spec {
        spec_of_pod.hostname = Some(name.clone());
        spec_of_pod.subdomain = spec.service_name.clone();
    }
    pod.metadata.name = Some(name);
    pod
}

fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    pod.name_any().strip_prefix(&format!("{}-", set.name_any()))?.parse().ok()
}

fn is_current(pod: &Pod, revision: &str) -> bool {
    pod.labels().get(REVISION).is_some_and(|r| r == revision)
}
