//! Waiting for a Deployment, and saying why it takes too long.

use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::ListParams;
use kube::runtime::{conditions, wait::await_condition};
use kube::{Api, Client, ResourceExt};

/// Waits until every replica of the Deployment's newest form is available.
pub async fn wait_for_deployment(
    client: &Client,
    namespace: &str,
    name: &str,
    timeout: Duration,
) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let completed = await_condition(deployments.clone(), name, conditions::is_deployment_completed());
    if let Ok(waited) = tokio::time::timeout(timeout, completed).await {
        waited.with_context(|| format!("deployment {namespace}/{name} can't be watched"))?;
        return Ok(());
    }
    let reasons = reasons(client, namespace, &deployments.get(name).await?).await?;
    bail!(
        "deployment {namespace}/{name} was not ready within {} s{}; see `kubectl -n {namespace} describe pods`",
        timeout.as_secs(),
        reasons.iter().map(|reason| format!("; {reason}")).collect::<String>(),
    );
}

/// What keeps its pods from being ready, and the last warning about one of them.
async fn reasons(client: &Client, namespace: &str, deployment: &Deployment) -> anyhow::Result<Vec<String>> {
    let labels = deployment.spec.selector.match_labels.iter().flatten();
    let selector: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = pods.list(&ListParams::default().labels(&selector.join(","))).await?.items;
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let events = events.list(&ListParams::default().fields("type=Warning")).await?.items;
    let mut reasons: Vec<String> = pods.iter().flat_map(pod_reasons).collect();
    if pods.is_empty() {
        reasons.push("it has no pods".into());
    }
    reasons.extend(last_warning(&events, &deployment.name_any()));
    Ok(reasons)
}

/// The containers of this pod that are not ready, and why.
fn pod_reasons(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    containers
        .filter(|container| !container.ready)
        .filter_map(|container| {
            let why = container_reason(container)?;
            Some(format!("pod {}: container {} {why}", pod.name_any(), container.name))
        })
        .collect()
}

fn container_reason(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let said = |reason: Option<&String>, message: Option<&String>| {
        [reason, message].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(": ")
    };
    if let Some(waiting) = &state.waiting {
        Some(format!("waits: {}", said(waiting.reason.as_ref(), waiting.message.as_ref())))
    } else if let Some(ended) = state.terminated.as_ref().filter(|ended| ended.exit_code != 0) {
        Some(format!("ended with {}: {}", ended.exit_code, said(ended.reason.as_ref(), ended.message.as_ref())))
    } else {
        state.running.as_ref().map(|_| "runs, and is not ready".into())
    }
}

fn last_warning(events: &[Event], deployment: &str) -> Option<String> {
    let about = |event: &&Event| event.involved_object.name.as_ref().is_some_and(|name| name.starts_with(deployment));
    let newest = |event: &&Event| {
        event.last_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0))
    };
    let event = events.iter().filter(about).max_by_key(newest)?;
    Some(format!("last warning: {}", event.message.as_deref()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(statuses: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "web-1" }, "status": statuses })).unwrap()
    }

    #[test]
    fn containers_that_are_not_ready_say_why() {
        let container = |name: &str, ready: bool, state: Value| json!({ "name": name, "ready": ready, "restartCount": 0, "image": "web", "imageID": "", "state": state });
        let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
        let ended = json!({ "terminated": { "exitCode": 2, "reason": "Error" } });
        let pod = pod(json!({
            "initContainerStatuses": [container("init", false, ended), container("sidecar", false, waiting)],
            "containerStatuses": [
                container("web", true, json!({ "running": {} })),
                container("slow", false, json!({ "running": {} })),
            ],
        }));
        assert_eq!(
            pod_reasons(&pod),
            [
                "pod web-1: container init ended with 2: Error",
                "pod web-1: container sidecar waits: CrashLoopBackOff: back-off 10s",
                "pod web-1: container slow runs, and is not ready",
            ]
        );
    }

    #[test]
    fn the_last_warning_about_the_deployment_is_told() {
        let event = |name: &str, minute: u8, message: &str| {
            serde_json::from_value(json!({
                "metadata": { "name": message }, "involvedObject": { "name": name }, "message": message,
                "lastTimestamp": format!("2026-11-23T08:{minute:02}:00Z"),
            }))
            .unwrap()
        };
        let events = [event("web-1", 2, "newer"), event("web-1", 1, "older"), event("shop-1", 3, "another's")];
        assert_eq!(last_warning(&events, "web").unwrap(), "last warning: newer");
        assert_eq!(last_warning(&events, "nothing"), None);
    }
}
