//! Deployments, StatefulSets and Jobs.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::helpers::{TestCluster, cluster, patiently, serving};

fn template(says: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [serving(says)]}})
}

fn rolled_out(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    let wanted = deployment.spec.replicas;
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
}

async fn pods(c: &TestCluster) -> Vec<Pod> {
    let all = c.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    all.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_out_scales_and_goes() {
    let Some(c) = cluster().await else { return };
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("one")}});
    c.create::<Deployment>(deployment).await;
    let first = c.until("web", rolled_out).await;
    assert_eq!(first.annotations()["deployment.kubernetes.io/revision"], "1");
    let before: Vec<String> = pods(&c).await.iter().map(|pod| pod.name_any()).collect();
    assert_eq!(before.len(), 2);
    assert!(before.iter().all(|name| name.starts_with("web-")), "{before:?}");

    let patch = json!({"spec": {"replicas": 3, "template": template("two")}});
    c.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let second = c.until("web", |d| rolled_out(d) && d.status.as_ref().unwrap().replicas == Some(3)).await;
    assert_eq!(second.annotations()["deployment.kubernetes.io/revision"], "2");
    let after = pods(&c).await;
    assert!(after.len() == 3 && after.iter().all(|pod| !before.contains(&pod.name_any())));

    c.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    patiently(async {
        while !c.api::<Pod>().list(&ListParams::default()).await.unwrap().items.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the pods go with their Deployment");
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_names_its_pods_in_order() {
    let Some(c) = cluster().await else { return };
    let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "web"}}, "template": template("db")}});
    c.create::<StatefulSet>(set).await;
    c.until::<StatefulSet>("db", |set| set.status.as_ref().is_some_and(|s| s.ready_replicas == Some(2))).await;
    let (first, second) = (c.ready("db-0").await, c.ready("db-1").await);
    let started = |pod: &Pod| pod.status.as_ref().unwrap().start_time.clone().unwrap().0;
    assert!(started(&first) <= started(&second));
    assert_eq!(first.spec.unwrap().hostname.as_deref(), Some("db-0"));
    c.cluster.shutdown().await;
}

fn has_condition(job: &Job, kind: &str) -> bool {
    job.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == kind && c.status == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_completes_beside_a_native_sidecar() {
    let Some(c) = cluster().await else { return };
    let mut sidecar = serving("sidecar");
    sidecar["restartPolicy"] = json!("Always");
    let work = json!({"name": "work", "image": "busybox", "command": ["/bin/sh", "-c", "echo worked as $JOB_COMPLETION_INDEX"]});
    let template = json!({"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1,
        "initContainers": [sidecar], "containers": [work]}});
    let spec = json!({"completions": 3, "parallelism": 2, "completionMode": "Indexed", "template": template});
    c.create::<Job>(json!({"metadata": {"name": "sum"}, "spec": spec})).await;
    let done = c.until::<Job>("sum", |job| has_condition(job, "Complete")).await;
    let status = done.status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.completed_indexes.as_deref()), (Some(3), None, Some("0-2")));
    for pod in c.api::<Pod>().list(&ListParams::default()).await.unwrap().items {
        let index = &pod.labels()["batch.kubernetes.io/job-completion-index"];
        assert_eq!(c.log_of(&pod.name_any(), "work").await, format!("worked as {index}\n"));
    }
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_keeps_failing_gives_up() {
    let Some(c) = cluster().await else { return };
    let fail = json!({"name": "work", "image": "busybox", "command": ["/bin/sh", "-c", "exit 3"]});
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [fail]}});
    c.create::<Job>(json!({"metadata": {"name": "sum"}, "spec": {"backoffLimit": 1, "template": template}})).await;
    let failed = c.until::<Job>("sum", |job| has_condition(job, "Failed")).await;
    let status = failed.status.unwrap();
    let why = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Failed").unwrap().reason;
    assert_eq!((status.failed, why.as_deref()), (Some(2), Some("BackoffLimitExceeded")));
    c.cluster.shutdown().await;
}
