//! Deployment → ReplicaSets, one for each version of the template.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::owned::{controlled_by, is_controlled_by};
use super::revision::{POD_TEMPLATE_HASH, template_hash};
use super::rollout::{self, Limits, Set};
use super::{Context, ReconcileError, progress};

const REVISION: &str = "deployment.kubernetes.io/revision";

pub(super) async fn reconcile(deployment: Arc<Deployment>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    if deployment.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let spec = &deployment.spec;
    let api: Api<ReplicaSet> = Api::namespaced(ctx.client.clone(), &deployment.namespace().unwrap_or_default());
    let mut sets = api.list(&ListParams::default()).await?.items;
    sets.retain(|set| is_controlled_by(set, deployment.as_ref()) && set.metadata.deletion_timestamp.is_none());
    sets.sort_by_key(revision_of);

    let hash = template_hash(&spec.template);
    let current = sets.iter().position(|set| set.labels().get(POD_TEMPLATE_HASH) == Some(&hash));
    let latest = sets.iter().map(revision_of).max().unwrap_or(0);
    let new = match current {
        Some(at) if revision_of(&sets[at]) == latest => sets.remove(at),
        // An earlier template is back (a rollback): its set becomes the newest revision.
        Some(at) => annotate(&api, &sets.remove(at).name_any(), latest + 1).await?,
        None if spec.paused == Some(true) && !sets.is_empty() => {
            return publish(&deployment, None, &sets, &ctx).await;
        }
        None => api.create(&PostParams::default(), &new_set(&deployment, spec, &hash, latest + 1)).await?,
    };
    let shown = revision_of(&new).to_string();
    if deployment.annotations().get(REVISION) != Some(&shown) {
        let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &deployment.namespace().unwrap_or_default());
        let patch = json!({"metadata": {"annotations": {REVISION: shown}}});
        api.patch(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    scale(&api, &deployment, spec, &new, &sets).await?;
    forget_old(&api, spec, &sets).await?;
    publish(&deployment, Some(&new), &sets, &ctx).await
}

/// Asks the ReplicaSets for their next number of replicas.
async fn scale(
    api: &Api<ReplicaSet>,
    deployment: &Deployment,
    spec: &DeploymentSpec,
    new: &ReplicaSet,
    old: &[ReplicaSet],
) -> Result<(), ReconcileError> {
    let desired = spec.replicas.unwrap_or(1);
    let strategy = spec.strategy.as_ref();
    let recreate = strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate");
    let (new_wanted, old_wanted) = if recreate {
        let none_left = old.iter().all(|set| has(set) == 0 && wanted(set) == 0 && leaving(set) == 0);
        (if none_left { desired } else { wanted(new) }, vec![0; old.len()])
    } else {
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let surge = rolling.and_then(|r| r.max_surge.as_ref());
        let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref());
        let limits = Limits::new(desired, surge, unavailable).map_err(|why| ReconcileError::Invalid {
            kind: "Deployment",
            name: deployment.name_any(),
            field: "spec.strategy.rollingUpdate",
            why,
        })?;
        let numbers: Vec<Set> = old.iter().map(numbers).collect();
        rollout::next(limits, self::numbers(new), &numbers)
    };
    for (set, replicas) in old.iter().zip(old_wanted).chain([(new, new_wanted)]) {
        if wanted(set) != replicas {
            let patch = json!({"spec": {"replicas": replicas}});
            api.patch(&set.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
    }
    Ok(())
}

/// Removes sets that are neither in use nor among the revisions to keep.
async fn forget_old(api: &Api<ReplicaSet>, spec: &DeploymentSpec, old: &[ReplicaSet]) -> Result<(), ReconcileError> {
    let idle: Vec<_> = old.iter().filter(|set| wanted(set) == 0 && has(set) == 0).collect();
    let keep = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    for set in idle.iter().take(idle.len().saturating_sub(keep)) {
        api.delete(&set.name_any(), &kube::api::DeleteParams::background()).await?;
    }
    Ok(())
}

async fn publish(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &[ReplicaSet],
    ctx: &Context,
) -> Result<Action, ReconcileError> {
    let (status, look_again) = progress::status(deployment, new, old, Timestamp::now());
    if deployment.status.as_ref() != Some(&status) {
        let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &deployment.namespace().unwrap_or_default());
        let patch = json!({"status": status});
        api.patch_status(&deployment.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    Ok(look_again.map_or_else(Action::await_change, Action::requeue))
}

fn new_set(deployment: &Deployment, spec: &DeploymentSpec, hash: &str, revision: i64) -> ReplicaSet {
    let label = |labels: &mut Option<BTreeMap<String, String>>| {
        labels.get_or_insert_default().insert(POD_TEMPLATE_HASH.to_owned(), hash.to_owned());
    };
    let mut template = spec.template.clone();
    label(&mut template.metadata.get_or_insert_default().labels);
    let mut selector = spec.selector.clone();
    label(&mut selector.match_labels);
    let mut annotations = deployment.annotations().clone();
    annotations.retain(|key, _| key != "kubectl.kubernetes.io/last-applied-configuration");
    annotations.insert(REVISION.to_owned(), revision.to_string());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{hash}", deployment.name_any())),
        namespace: deployment.namespace(),
        labels: template.metadata.as_ref().and_then(|m| m.labels.clone()),
        annotations: Some(annotations),
        owner_references: Some(vec![controlled_by(deployment)]),
        ..ObjectMeta::default()
    };
    let spec = k8s_openapi::api::apps::v1::ReplicaSetSpec {
        replicas: Some(0),
        selector,
        template: Some(template),
        min_ready_seconds: spec.min_ready_seconds,
    };
    ReplicaSet { metadata, spec, status: None }
}

async fn annotate(api: &Api<ReplicaSet>, name: &str, revision: i64) -> Result<ReplicaSet, kube::Error> {
    let patch = json!({"metadata": {"annotations": {REVISION: revision.to_string()}}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

fn revision_of(set: &ReplicaSet) -> i64 {
    set.annotations().get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

fn numbers(set: &ReplicaSet) -> Set {
    Set { wanted: wanted(set), available: available(set) }
}

fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

fn has(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |s| s.replicas)
}

fn leaving(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}
