//! The bookstore, running in a mesh on a one-machine cluster: what the story acts on and looks at.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use fsm_local::{LocalCluster, LocalConfig};
use fsm_store::Seq;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::DemoArgs;
use super::fetch;
use super::folder;
use super::observer::Observer;
use super::report::{LogSize, Mtls, Sales};
use crate::cluster::{Applier, parse_manifest};
use crate::install::{InstallArgs, install};
use crate::readiness::wait_for_deployment;

pub const MESH_NAMESPACE: &str = "fsm-system";

const ACCESS: (&str, &str) = ("access.yaml", include_str!("../../demo/access.yaml"));

/// In an order in which each finds its namespace.
const MANIFESTS: &[(&str, &str)] = &[
    ("bookwarehouse.yaml", include_str!("../../demo/bookwarehouse.yaml")),
    ("bookstore.yaml", include_str!("../../demo/bookstore.yaml")),
    ACCESS,
    ("split.yaml", include_str!("../../demo/split.yaml")),
    ("bookbuyer.yaml", include_str!("../../demo/bookbuyer.yaml")),
    ("bookthief.yaml", include_str!("../../demo/bookthief.yaml")),
];

/// Namespace and Deployment of each workload.
const WORKLOADS: &[(&str, &str)] = &[
    ("bookwarehouse", "bookwarehouse"),
    ("bookstore", "bookstore-v1"),
    ("bookstore", "bookstore-v2"),
    ("bookbuyer", "bookbuyer"),
    ("bookthief", "bookthief"),
];

/// The TrafficTargets of the buyer, in namespace bookstore.
const BUYER_TARGETS: &[&str] = &["bookbuyer-access-bookstore-v1", "bookbuyer-access-bookstore-v2"];

/// How long a change may take to reach every proxy before the story calls it failed.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Bookstore {
    cluster: Arc<LocalCluster>,
    client: Client,
    data_dir: PathBuf,
    pub observer: Observer,
}

impl Bookstore {
    /// Starts the cluster, installs the mesh, and brings up the bookstore.
    pub async fn start(args: &DemoArgs, data_dir: &Path, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        folder::empty(data_dir).await?;
        say("starting a one-machine Kubernetes cluster …");
        let executable = std::env::current_exe().context("cannot find this program's own file")?;
        let config =
            LocalConfig { api_port: args.api_port, ..LocalConfig::new(&data_dir.join(folder::CLUSTER), executable) };
        let started = match LocalCluster::up(config).await {
            Ok(cluster) => Self::start_in(Arc::new(cluster), data_dir, say).await,
            Err(error) => Err(error.into()),
        };
        if started.is_err() {
            folder::remove(data_dir)?;
        }
        started
    }

    async fn start_in(
        cluster: Arc<LocalCluster>,
        data_dir: &Path,
        say: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<Self> {
        let started = Self::fill(cluster.clone(), data_dir, say).await;
        if started.is_err() {
            stop_cluster(cluster).await;
        }
        started
    }

    async fn fill(cluster: Arc<LocalCluster>, data_dir: &Path, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Self> {
        let client = cluster.client();
        say(&format!("  export KUBECONFIG={}", cluster.kubeconfig_path().display()));
        interceptable()?;
        say("installing the mesh …");
        let settings = InstallArgs {
            permissive: false,
            log_host_path: Some(data_dir.join(folder::LOG)),
            timeout_seconds: START_TIMEOUT.as_secs(),
            ..InstallArgs::default()
        };
        install(&client, &settings).await?;
        let observer = Observer::start(cluster.clone());
        say("starting the bookstore …");
        let mut applier = Applier::new(client.clone());
        for (name, text) in MANIFESTS {
            applier.apply(&parse_manifest(name, text)?).await?;
        }
        for (namespace, deployment) in WORKLOADS {
            wait_for_deployment(&client, namespace, deployment, START_TIMEOUT).await?;
        }
        Ok(Self { cluster, client, data_dir: data_dir.to_owned(), observer })
    }

    /// Ends everything that was started; keeps the event log if asked to, and says where.
    pub async fn stop(self, keep_log: bool) -> anyhow::Result<Option<PathBuf>> {
        drop(self.observer);
        drop(self.client);
        stop_cluster(self.cluster).await;
        let log = self.data_dir.join(folder::LOG);
        if keep_log {
            folder::remove(&self.data_dir.join(folder::CLUSTER))?;
            return Ok(Some(log));
        }
        folder::remove(&self.data_dir)?;
        Ok(None)
    }

    pub fn kubeconfig(&self) -> &Path {
        self.cluster.kubeconfig_path()
    }

    /// The counters of `bookbuyer` or `bookthief`.
    pub async fn sales(&self, buyer: &str) -> anyhow::Result<Sales> {
        self.get(buyer, buyer, 14001, "/raw").await
    }

    /// Connections between workloads, counted by all proxies of the bookstore.
    pub async fn mtls(&self) -> anyhow::Result<Mtls> {
        let mut sum = Mtls::default();
        for (namespace, deployment) in WORKLOADS {
            let stats: Value = self.get(namespace, deployment, 15000, "/stats").await?;
            let count = |name: &str| stats["data"]["connections"][name].as_u64();
            let (Some(mtls), Some(plaintext)) = (count("mtls"), count("plaintext")) else {
                bail!("the proxy of {namespace}/{deployment} does not count its connections: {stats}");
            };
            sum.connections += mtls;
            sum.plaintext += plaintext;
        }
        Ok(sum)
    }

    /// How many records the controller's log holds, and its size on disk.
    pub async fn log_size(&self) -> anyhow::Result<LogSize> {
        let status: Value = self.get(MESH_NAMESPACE, "fsm-controller", 9092, "/status").await?;
        let field = |name: &str| status[name].as_u64().with_context(|| format!("/status has no {name}: {status}"));
        Ok(LogSize { records: field("records")?, seq: field("seq")?, bytes: field("bytes")? })
    }

    /// By what means the pods' connections are captured.
    pub fn interception(&self) -> &'static str {
        self.cluster.interception()
    }

    /// Sets the weights of v1 and v2, and waits until every proxy concerned has acknowledged them.
    pub async fn split(&self, v1: u32, v2: u32) -> anyhow::Result<Seq> {
        let splits = self.api("split.smi-spec.io", "v1alpha4", "TrafficSplit", "bookstore");
        let backends =
            json!([{ "service": "bookstore-v1", "weight": v1 }, { "service": "bookstore-v2", "weight": v2 }]);
        let before = self.observer.seq();
        let change = Patch::Merge(json!({ "spec": { "backends": backends } }));
        splits
            .patch("bookstore-split", &PatchParams::default(), &change)
            .await
            .context("TrafficSplit bookstore-split")?;
        self.settled(before, "split.smi-spec.io/v1alpha4/TrafficSplit bookstore/bookstore-split").await
    }

    /// Takes the buyer's TrafficTargets away.
    pub async fn remove_access(&self) -> anyhow::Result<()> {
        let targets = self.api("access.smi-spec.io", "v1alpha3", "TrafficTarget", "bookstore");
        let before = self.observer.seq();
        for name in BUYER_TARGETS {
            targets.delete(name, &DeleteParams::default()).await.with_context(|| format!("TrafficTarget {name}"))?;
        }
        self.access_settled(before).await
    }

    /// Gives them back.
    pub async fn restore_access(&self) -> anyhow::Result<()> {
        let access = parse_manifest(ACCESS.0, ACCESS.1)?;
        let lost: Vec<_> = access.into_iter().filter(|it| BUYER_TARGETS.contains(&it.name_any().as_str())).collect();
        let before = self.observer.seq();
        Applier::new(self.client.clone()).apply(&lost).await?;
        self.access_settled(before).await
    }

    async fn access_settled(&self, before: Seq) -> anyhow::Result<()> {
        for name in BUYER_TARGETS {
            self.settled(before, &format!("access.smi-spec.io/v1alpha3/TrafficTarget bookstore/{name}")).await?;
        }
        Ok(())
    }

    /// Kills the controller with SIGKILL, and waits until its successor is ready.
    pub async fn kill_controller(&self) -> anyhow::Result<()> {
        let pod = pod_of(&self.cluster, MESH_NAMESPACE, "fsm-controller").await?;
        let restarts = self.controller_restarts(&pod).await?;
        let pid = self.cluster.container_pid(MESH_NAMESPACE, &pod, "fsm-controller")?;
        fsm_local::kill(pid)?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), MESH_NAMESPACE);
        let back = await_condition(pods, &pod, |pod: Option<&Pod>| {
            let status = pod.and_then(|pod| pod.status.as_ref());
            let container = status.and_then(|status| status.container_statuses.as_ref()?.first());
            container.is_some_and(|it| it.ready && it.restart_count > restarts)
        });
        tokio::time::timeout(START_TIMEOUT, back).await.context("the controller did not come back")??;
        self.webhooks_reachable().await
    }

    /// Waits until the controller's Service leads to it again: before that, the API server refuses what it would validate.
    async fn webhooks_reachable(&self) -> anyhow::Result<()> {
        let services = ["fsm-controller", "fsm-injector"];
        for service in services {
            let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), MESH_NAMESPACE);
            let name = slices
                .list(&ListParams::default().labels(&format!("kubernetes.io/service-name={service}")))
                .await?
                .iter()
                .map(ResourceExt::name_any)
                .next()
                .with_context(|| format!("service {MESH_NAMESPACE}/{service} has no EndpointSlice"))?;
            let ready = await_condition(slices, &name, |slice: Option<&EndpointSlice>| {
                let endpoints = slice.and_then(|slice| slice.endpoints.as_ref());
                endpoints.is_some_and(|all| {
                    all.iter().any(|it| it.conditions.as_ref().and_then(|it| it.ready) == Some(true))
                })
            });
            let waited = tokio::time::timeout(START_TIMEOUT, ready).await;
            waited.with_context(|| format!("service {service} has no ready endpoint"))??;
        }
        Ok(())
    }

    async fn controller_restarts(&self, pod: &str) -> anyhow::Result<i32> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), MESH_NAMESPACE);
        let status = pods.get(pod).await?.status.unwrap_or_default();
        Ok(status.container_statuses.unwrap_or_default().first().map_or(0, |container| container.restart_count))
    }

    async fn settled(&self, after: Seq, key: &str) -> anyhow::Result<Seq> {
        self.observer.settled(after, key, SETTLE_TIMEOUT).await
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        namespace: &str,
        app: &str,
        port: u16,
        path: &str,
    ) -> anyhow::Result<T> {
        let place = || format!("{namespace}/{app} port {port}");
        let pod = pod_of(&self.cluster, namespace, app).await.with_context(place)?;
        let stream = self.cluster.dial_pod(namespace, &pod, port).await.with_context(place)?;
        fetch::json(stream, path).await.with_context(place)
    }

    fn api(&self, group: &str, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

/// The name of the running pod with label `app`.
pub async fn pod_of(cluster: &LocalCluster, namespace: &str, app: &str) -> anyhow::Result<String> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), namespace);
    let found = pods.list(&ListParams::default().labels(&format!("app={app}"))).await?;
    let running = found.iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(running.with_context(|| format!("no pod of {app} runs in namespace {namespace}"))?.name_any())
}

async fn stop_cluster(cluster: Arc<LocalCluster>) {
    match Arc::try_unwrap(cluster) {
        Ok(cluster) => cluster.shutdown().await,
        // The observer's task has not let go yet; dropping the last reference cleans up just as well.
        Err(cluster) => drop(cluster),
    }
}

/// Says what is missing if this machine can't intercept traffic: without that, pods would be refused one by one, and much later.
fn interceptable() -> anyhow::Result<()> {
    let missing: Vec<String> = fsm_ebpf::probe()
        .features
        .iter()
        .filter(|feature| feature.mechanism != fsm_ebpf::For::Nftables)
        .filter_map(|feature| {
            let why = feature.missing.as_ref()?;
            Some(format!("{} (Linux {}, for {}): {why}", feature.name, feature.since, feature.needed_for))
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "this machine can't intercept traffic with eBPF; run as root, with all capabilities, on Linux 5.16 or newer with cgroup v2 and BPF. Missing: {}",
        missing.join("; ")
    );
}
