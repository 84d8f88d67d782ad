//! A cluster for a test, and waiting for what should become true.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use fsm_local::{LocalCluster, LocalConfig};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, LogParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server;

/// How long anything may take in a test before it counts as never.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct TestCluster {
    pub cluster: LocalCluster,
    pub dir: TempDir,
}

/// A fresh cluster, or `None` (and a line saying so) where the machine can't run one.
pub async fn cluster() -> Option<TestCluster> {
    let dir = tempfile::tempdir().unwrap();
    let cluster = up(dir.path()).await?;
    Some(TestCluster { cluster, dir })
}

pub async fn up(dir: &std::path::Path) -> Option<LocalCluster> {
    up_with(dir, 1).await
}

/// A fresh cluster with several nodes.
pub async fn nodes(count: u8) -> Option<TestCluster> {
    let dir = tempfile::tempdir().unwrap();
    let cluster = up_with(dir.path(), count).await?;
    Some(TestCluster { cluster, dir })
}

async fn up_with(dir: &std::path::Path, nodes: u8) -> Option<LocalCluster> {
    let executable = std::env::current_exe().unwrap();
    up_as(LocalConfig { nodes, ..LocalConfig::new(dir, executable) }).await
}

/// A cluster as configured.
pub async fn up_as(config: LocalConfig) -> Option<LocalCluster> {
    match LocalCluster::up(config).await {
        Ok(cluster) => Some(cluster),
        Err(fsm_local::UpError::Unfit(missing)) => {
            println!("skipped: needs root, namespaces and cgroup v2 ({missing})");
            None
        }
        Err(error) => panic!("the cluster does not come up: {error}"),
    }
}

impl TestCluster {
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client(), "default")
    }

    pub async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let object = serde_json::from_value(object).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Waits until the object satisfies `wanted`; fails with its last state.
    pub async fn until<K>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> K
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Serialize
            + Clone
            + Debug
            + Send
            + 'static,
    {
        self.until_some(name, |object: Option<&K>| object.is_some_and(&wanted)).await.unwrap()
    }

    pub async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Serialize
            + Clone
            + Debug
            + Send
            + 'static,
    {
        self.until_some(name, |object: Option<&K>| object.is_none()).await;
    }

    async fn until_some<K>(&self, name: &str, wanted: impl Fn(Option<&K>) -> bool) -> Option<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Serialize
            + Clone
            + Debug
            + Send
            + 'static,
    {
        let mut last = None;
        let found = patiently(async {
            let mut states = watcher::watch_object(self.api::<K>(), name).default_backoff().boxed();
            while let Some(state) = states.next().await {
                let Ok(state) = state else { continue };
                last = state;
                if wanted(last.as_ref()) {
                    return;
                }
            }
        });
        let found = found.await;
        assert!(found.is_some(), "{name} did not become as wanted: {}", json!(last));
        last
    }

    /// Waits until all containers of the pod are ready.
    pub async fn ready(&self, name: &str) -> Pod {
        self.until(name, is_ready).await
    }

    pub async fn log_of(&self, pod: &str, container: &str) -> String {
        let parameters = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        self.api::<Pod>().logs(pod, &parameters).await.unwrap()
    }

    pub async fn log(&self, pod: &str) -> String {
        self.api::<Pod>().logs(pod, &LogParams::default()).await.unwrap()
    }
}

pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

/// The result, or `None` when it takes longer than anything should.
pub async fn patiently<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, work).await.ok()
}

/// Asks until there is an answer.
pub async fn until_some<T>(mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = patiently(async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    });
    answer.await.expect("an answer in time")
}

/// A pod that runs `script` in a shell.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 2, "containers": [
        {"name": "main", "image": "busybox", "command": ["/bin/sh", "-c", script]}]}})
}

/// A container that serves HTTP and says `name`.
pub fn serving(name: &str) -> Value {
    json!({"name": "web", "image": server::IMAGE, "args": server::ARGS, "env": [{"name": "SERVE", "value": name}],
        "ports": [{"name": "http", "containerPort": server::PORT}]})
}

/// What the server says to `GET path`.
pub async fn get(mut stream: TcpStream, path: &str) -> Option<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// The output of a pod's script, once it has ended well.
pub async fn output(c: &TestCluster, name: &str, script: &str) -> String {
    let mut client = shell(name, script);
    client["spec"]["restartPolicy"] = json!("Never");
    finished(c, client).await
}

/// The output of a pod that ends, once it has ended well.
pub async fn finished(c: &TestCluster, pod: Value) -> String {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    c.create::<Pod>(pod).await;
    c.until::<Pod>(&name, |pod| pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Succeeded"))).await;
    c.log(&name).await
}

/// The addresses behind a service, and whether they are ready.
pub async fn endpoints(c: &TestCluster, service: &str) -> Vec<(String, bool)> {
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = c.api::<EndpointSlice>().list(&of_service).await.unwrap();
    let endpoints = slices.items.into_iter().flat_map(|s| s.endpoints.unwrap_or_default());
    endpoints.map(|e| (e.addresses[0].clone(), e.conditions.unwrap().ready.unwrap())).collect()
}
