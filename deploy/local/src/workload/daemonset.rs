//! DaemonSet → one Pod on every node that fits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use serde_json::json;

use super::history::{self, REVISION};
use super::owned::is_controlled_by;
use super::placement::unfit;
use super::pods::{available_in, from_template, is_finished, is_ready};
use super::rollout::Limits;
use super::{Context, ReconcileError};

pub(super) async fn reconcile(set: Arc<DaemonSet>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    let spec = &set.spec;
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let api: Api<Pod> = Api::namespaced(ctx.client.clone(), &set.namespace().unwrap_or_default());
    let version = history::record(&ctx.client, set.as_ref(), &spec.template, str::to_owned).await?;
    let mut pods = api.list(&ListParams::default()).await?.items;
    pods.retain(|pod| is_controlled_by(pod, set.as_ref()));
    let mut by_node: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for pod in pods {
        by_node.entry(node_of(&pod).unwrap_or_default()).or_default().push(pod);
    }
    let nodes = ctx.nodes.store.state();
    let fits = |node: &Node| unfit(&pod_for(&set, &node.name_any(), &version.label), node).is_none();
    let wanted: Vec<String> = nodes.iter().filter(|node| fits(node)).map(|node| node.name_any()).collect();

    let mut counts = Counts::default();
    let min_ready = Duration::from_secs(spec.min_ready_seconds.unwrap_or(0).try_into().unwrap_or(0));
    let now = Timestamp::now();
    let mut look_again: Option<Duration> = None;
    let mut outdated = Vec::new();
    for node in &wanted {
        let pods = by_node.remove(node).unwrap_or_default();
        // One that ended is replaced: a daemon is not meant to end.
        let (ended, mut alive): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_finished);
        for pod in &ended {
            remove(&api, pod).await?;
        }
        alive.sort_by_key(|pod| (pod.metadata.deletion_timestamp.is_some(), pod.creation_timestamp()));
        let Some(pod) = alive.first() else {
            if ended.is_empty() {
                let made = api.create(&PostParams::default(), &pod_for(&set, node, &version.label)).await;
                if let Err(error) = made {
                    ctx.events.warn(set.as_ref(), "FailedCreate", &format!("Error creating: {error}"));
                    return Err(error.into());
                }
                (counts.current, counts.updated) = (counts.current + 1, counts.updated + 1);
            }
            continue;
        };
        for surplus in alive.iter().skip(1).filter(|p| p.metadata.deletion_timestamp.is_none()) {
            remove(&api, surplus).await?;
        }
        counts.current += 1;
        let wait = available_in(pod, min_ready, now).filter(|_| pod.metadata.deletion_timestamp.is_none());
        counts.ready += i32::from(is_ready(pod));
        counts.available += i32::from(wait == Some(Duration::ZERO));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            look_again = Some(look_again.map_or(wait, |other| other.min(wait)));
        }
        if pod.labels().get(REVISION) == Some(&version.label) {
            counts.updated += 1;
        } else if pod.metadata.deletion_timestamp.is_none() {
            outdated.push((wait == Some(Duration::ZERO), pod.clone()));
        }
    }
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let misplaced: Vec<Pod> = by_node.into_values().flatten().collect();
    for pod in misplaced.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        remove(&api, pod).await?;
    }
    if spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete") {
        replace(&set, &api, outdated, count(wanted.len()), counts.available).await?;
    }
    let labels: Vec<_> = api.list(&ListParams::default()).await?.items;
    let in_use = |label: &str| labels.iter().any(|p| p.labels().get(REVISION).is_some_and(|l| l == label));
    version.forget_old(&ctx.client, spec.revision_history_limit, in_use).await?;
    publish(&set, &ctx, counts, count(wanted.len()), count(misplaced.len())).await?;
    Ok(look_again.map_or_else(Action::await_change, Action::requeue))
}

#[derive(Default, Clone, Copy)]
struct Counts {
    current: i32,
    ready: i32,
    available: i32,
    updated: i32,
}

/// Deletes pods of earlier versions, as many as may be missing; those that don't serve first. Each is made anew when it is gone.
async fn replace(
    set: &DaemonSet,
    api: &Api<Pod>,
    mut outdated: Vec<(bool, Pod)>,
    desired: i32,
    available: i32,
) -> Result<(), ReconcileError> {
    let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let one = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(1);
    let none = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(0);
    let unavailable = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&one);
    let limits = Limits::new(desired, Some(&none), Some(unavailable)).map_err(|why| ReconcileError::Invalid {
        kind: "DaemonSet",
        name: set.name_any(),
        field: "spec.updateStrategy.rollingUpdate",
        why,
    })?;
    let mut room = limits.max_unavailable - (desired - available);
    outdated.sort_by_key(|(serves, _)| *serves);
    for (serves, pod) in outdated {
        if serves {
            if room <= 0 {
                return Ok(());
            }
            room -= 1;
        }
        remove(api, &pod).await?;
    }
    Ok(())
}

async fn remove(api: &Api<Pod>, pod: &Pod) -> Result<(), ReconcileError> {
    match api.delete(&pod.name_any(), &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn publish(
    set: &DaemonSet,
    ctx: &Context,
    counts: Counts,
    desired: i32,
    misscheduled: i32,
) -> Result<(), ReconcileError> {
    let status = DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: counts.current,
        number_ready: counts.ready,
        number_available: Some(counts.available),
        number_unavailable: Some((desired - counts.available).max(0)),
        updated_number_scheduled: Some(counts.updated),
        number_misscheduled: misscheduled,
        observed_generation: set.metadata.generation,
        collision_count: None,
        conditions: None,
    };
    if set.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<DaemonSet> = Api::namespaced(ctx.client.clone(), &set.namespace().unwrap_or_default());
    match api.patch_status(&set.name_any(), &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The pod for one node, tied to it by affinity, as the scheduler is the one who binds.
fn pod_for(set: &DaemonSet, node: &str, revision: &str) -> Pod {
    let mut pod = from_template(set, &set.spec.template);
    pod.metadata.generate_name = Some(format!("{}-", set.name_any()));
    pod.metadata.labels.get_or_insert_default().insert(REVISION.to_owned(), revision.to_owned());
    let Some(spec) = &mut pod.spec else { return pod };
    let requirement = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required = affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![requirement.clone()]);
    }
    for (key, effect) in [("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("unschedulable", "NoSchedule")] {
        spec.tolerations.get_or_insert_default().push(Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        });
    }
    pod
}

/// The node the pod is on, or is meant for.
fn node_of(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    spec.node_name.clone().or_else(|| {
        let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let fields = required.node_selector_terms.first()?.match_fields.as_ref()?;
        fields.iter().find(|f| f.key == "metadata.name")?.values.as_ref()?.first().cloned()
    })
}
