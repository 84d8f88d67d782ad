//! One round of everything that comes and goes in a cluster, in a namespace of its own.

use std::fmt::Debug;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::helpers::{TestCluster, is_ready, patiently, serving, shell, until_some};
use crate::server;

struct Round<'a> {
    c: &'a TestCluster,
    client: Client,
    namespace: String,
}

/// Makes, changes, breaks and removes; returns when the namespace is gone.
pub async fn run(c: &TestCluster, number: usize) {
    let round = Round { c, client: c.cluster.client(), namespace: format!("churn-{number}") };
    let namespaces: Api<Namespace> = Api::all(round.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": round.namespace}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    round.workloads().await;
    round.crash().await;
    round.roll().await;
    namespaces.delete(&round.namespace, &DeleteParams::default()).await.unwrap();
    gone(namespaces, &round.namespace).await;
}

impl Round<'_> {
    fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create<K>(&self, object: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap();
    }

    async fn available(&self, replicas: i32) {
        let wanted = |deployment: Option<&Deployment>| {
            deployment.is_some_and(|d| {
                let status = d.status.clone().unwrap_or_default();
                let counts = [status.replicas, status.updated_replicas, status.available_replicas];
                status.observed_generation == d.metadata.generation && counts == [Some(replicas); 3]
            })
        };
        until(self.api::<Deployment>(), "web", wanted).await;
    }

    /// Everything at once: a Deployment behind a Service, a Job with a sidecar, a pod that fails, one that waits in vain.
    async fn workloads(&self) {
        let selector = json!({"app": "web"});
        self.create::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"mode": "fast"}})).await;
        let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
        self.create::<Service>(
            json!({"metadata": {"name": "web"}, "spec": {"selector": selector, "type": "NodePort", "ports": ports}}),
        )
        .await;
        let mut web = serving("web");
        web["readinessProbe"] = json!({"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1});
        web["volumeMounts"] =
            json!([{"name": "settings", "mountPath": "/etc/settings"}, {"name": "shared", "mountPath": "/shared"}]);
        let volumes =
            json!([{"name": "settings", "configMap": {"name": "settings"}}, {"name": "shared", "emptyDir": {}}]);
        let pod = json!({"terminationGracePeriodSeconds": 1, "containers": [web], "volumes": volumes});
        let template = json!({"metadata": {"labels": selector}, "spec": pod});
        let spec = json!({"replicas": 3, "selector": {"matchLabels": selector}, "template": template});
        self.create::<Deployment>(json!({"metadata": {"name": "web"}, "spec": spec})).await;

        let mut sidecar = serving("sidecar");
        sidecar["restartPolicy"] = json!("Always");
        let work = json!({"name": "work", "image": "busybox", "command": ["/bin/sh", "-c", "sleep 1000 & echo done"]});
        let pod = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "initContainers": [sidecar], "containers": [work]});
        let spec = json!({"completions": 2, "parallelism": 2, "template": {"spec": pod}});
        self.create::<Job>(json!({"metadata": {"name": "sum"}, "spec": spec})).await;
        self.create::<Pod>(shell("failing", "echo once; exit 1")).await;
        let mut waiting = shell("waiting", "sleep 1000");
        waiting["spec"]["volumes"] = json!([{"name": "never", "configMap": {"name": "never"}}]);
        self.create::<Pod>(waiting).await;

        self.available(3).await;
        let complete = |job: Option<&Job>| {
            let conditions = job.and_then(|job| job.status.as_ref()?.conditions.clone()).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == "Complete" && c.status == "True")
        };
        until(self.api::<Job>(), "sum", complete).await;
        until(self.api::<Pod>(), "failing", |pod| pod.is_some_and(|pod| restarts(pod) >= 1)).await;
    }

    /// Connects to one of the pods and kills its process.
    async fn crash(&self) {
        let selected = ListParams::default().labels("app=web");
        let pods = self.api::<Pod>().list(&selected).await.unwrap().items;
        let name = pods.iter().find(|pod| is_ready(pod)).unwrap().name_any();
        let stream = self.c.cluster.dial_pod(&self.namespace, &name, server::PORT).await.unwrap();
        let pid = self.c.cluster.container_pid(&self.namespace, &name, "web").unwrap();
        fsm_local::node::kill(pid).unwrap();
        until(self.api::<Pod>(), &name, |pod| pod.is_some_and(|pod| restarts(pod) == 1 && is_ready(pod))).await;
        drop(stream);
        // Another goes without being asked to end.
        let other = pods.iter().find(|pod| pod.name_any() != name).unwrap().name_any();
        self.api::<Pod>().delete(&other, &DeleteParams::default().grace_period(0)).await.unwrap();
        gone(self.api::<Pod>(), &other).await;
        self.available(3).await;
    }

    async fn roll(&self) {
        let env = json!([{"name": "SERVE", "value": "second"}]);
        let patch =
            json!({"spec": {"replicas": 4, "template": {"spec": {"containers": [{"name": "web", "env": env}]}}}});
        self.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
        self.available(4).await;
        let patch = json!({"data": {"mode": "slow"}});
        self.api::<ConfigMap>().patch("settings", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        self.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
        let patch = json!({"spec": {"replicas": 1}});
        self.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        self.available(1).await;
        // What leaves takes its time; it must be gone for the count.
        until_some(async || {
            let pods = self.api::<Pod>().list(&ListParams::default().labels("app=web")).await.ok()?;
            (pods.items.len() == 1).then_some(())
        })
        .await;
    }
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.clone()).unwrap_or_default();
    statuses.iter().map(|s| s.restart_count).sum()
}

async fn gone<K>(api: Api<K>, name: &str)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    until(api, name, |object| object.is_none()).await;
}

async fn until<K>(api: Api<K>, name: &str, wanted: impl Fn(Option<&K>) -> bool)
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut last = None;
    let found = patiently(async {
        let mut states = watcher::watch_object(api, name).default_backoff().boxed();
        while let Some(state) = states.next().await {
            let Ok(state) = state else { continue };
            last = state;
            if wanted(last.as_ref()) {
                return;
            }
        }
    });
    assert!(found.await.is_some(), "{name} did not become as wanted: {last:?}");
}
