//! The agent as a process: what the Kubernetes API says of the node's pods goes to [`Node`].

use super::{
    node::{Node, Settings, netns_number},
    pods::{PROXY_UUID, Wanted, mesh_rules, wanted},
    serve::{Health, serve},
};
use crate::{cgroup, interceptor::Interceptor, mechanism::Mechanism, probe::probe, rules::Rules};
use anyhow::{Context, Result};
use futures::{FutureExt, StreamExt, TryStreamExt, stream::BoxStream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt, reflector, watcher},
};
use std::{
    collections::BTreeSet,
    fs::File,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};

/// How often the node is looked at without a reason, to let go of pods that have ended.
const CALM: Duration = Duration::from_secs(5);
/// How often while a container that the API calls running cannot be found, or an attempt failed.
const WAITING: Duration = Duration::from_millis(200);
/// How long connections that an agent with other tables captured may take to be accepted by their proxies.
const SUPERSEDED_AFTER: Duration = Duration::from_secs(60);

/// Which mechanism is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Asked {
    /// eBPF if this kernel has all it needs, else nftables.
    Auto,
    Ebpf,
    Nftables,
}

/// What the agent is told when it starts.
#[derive(Clone, Debug)]
pub struct Options {
    pub node_name: String,
    /// Where tables and links outlive the agent.
    pub pin_folder: PathBuf,
    /// The node's cgroup v2 hierarchy; looked for if not given.
    pub cgroup_root: Option<PathBuf>,
    pub fail_closed: bool,
    pub mechanism: Asked,
    /// Namespace and name of the MeshConfig.
    pub mesh_config: (String, String),
    /// Where health and metrics are served.
    pub listen: SocketAddr,
}

/// Serves until it is told to end. Pods stay intercepted then.
pub async fn run(options: Options) -> Result<()> {
    let mechanism = choose(&options)?;
    let cgroup_root =
        options.cgroup_root.clone().map_or_else(cgroup::mount_point, |given| cgroup::hierarchy_at(&given))?;
    tracing::info!(node = %options.node_name, mechanism = mechanism.name(), cgroups = %cgroup_root.display(), pins = %options.pin_folder.display(), "ready to intercept");
    let client = Client::try_default().await.context("no Kubernetes API: run in a pod, or set KUBECONFIG")?;
    let health = Arc::new(Health::default());
    let served = serve(options.listen, Arc::clone(&health)).await?;
    // A second safeguard: pods that say they use the node's network are left alone anyway.
    let node_netns = File::open("/proc/1/ns/net").and_then(|file| netns_number(&file)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the node's own network cannot be told from a pod's: run with hostPID and CAP_SYS_PTRACE");
        0
    });
    let settings = Settings { cgroup_root, fail_closed: options.fail_closed, node_netns };
    let node = Node::new(mechanism.clone(), settings);
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        ended = follow(&client, &options, node, mechanism, &health) => ended?,
        ended = served => ended?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending; pods stay intercepted");
    Ok(())
}

/// eBPF where it is complete, and otherwise nf_tables, unless one is asked for.
fn choose(options: &Options) -> Result<Mechanism> {
    let ebpf = || Interceptor::open(&options.pin_folder).map(Mechanism::Ebpf);
    match options.mechanism {
        Asked::Ebpf => Ok(ebpf()?),
        Asked::Nftables => Ok(Mechanism::Nftables),
        Asked::Auto => {
            let table = probe();
            let Some(missing) = table.missing_for_ebpf() else { return Ok(ebpf()?) };
            if let Some(missing_too) = table.missing_for_nftables() {
                anyhow::bail!("pods cannot be intercepted here: eBPF needs {missing}; nftables needs {missing_too}");
            }
            tracing::warn!(%missing, "eBPF is not complete here; nftables takes its place");
            Ok(Mechanism::Nftables)
        }
    }
}

async fn follow(
    client: &Client,
    options: &Options,
    mut node: Node,
    mechanism: Mechanism,
    health: &Health,
) -> Result<()> {
    let (pods, mut changes) = watch_pods(client, &options.node_name);
    let mesh = Arc::new(Mutex::new(Rules::default()));
    let mut config = watch_mesh_config(client, &options.mesh_config, Arc::clone(&mesh));
    let started = Instant::now();
    let mut refused = BTreeSet::new();
    let (mut listed, mut superseded, mut pause) = (false, false, CALM);
    loop {
        tokio::select! {
            change = changes.next() => {
                let Some(()) = change else { anyhow::bail!("the watch of pods ended") };
                listed |= pods.listed();
            }
            Some(()) = config.next() => {}
            () = tokio::time::sleep(pause) => {}
        }
        // Before all pods are known, those that are missing might be taken for gone.
        if !listed {
            health.beat(None);
            continue;
        }
        let rules = mesh.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wanted = all_wanted(&pods.0, &rules, &mut refused);
        let forget = !superseded && started.elapsed() > SUPERSEDED_AFTER;
        superseded |= forget;
        let mechanism = mechanism.clone();
        let turn = tokio::task::spawn_blocking(move || {
            let waiting = node.reconcile(&wanted);
            if let Mechanism::Ebpf(interceptor) = mechanism {
                tidy(&interceptor, forget);
            }
            let summary = node.summary(wanted.len());
            (node, waiting, summary)
        });
        let (back, waiting, summary) = turn.await.context("the agent's turn panicked")?;
        node = back;
        pause = if waiting > 0 { WAITING } else { CALM };
        health.beat(Some(summary));
    }
}

/// Lets go of what nobody needs any more; what cannot be removed now is tried again at the next turn.
fn tidy(interceptor: &Interceptor, superseded: bool) {
    match interceptor.sweep() {
        Ok(0) => {}
        Ok(pods) => tracing::info!(pods, "pods of an earlier agent have ended; no longer intercepted"),
        Err(error) => tracing::warn!(%error, "looking for ended pods of an earlier agent"),
    }
    if superseded && let Err(error) = interceptor.forget_superseded() {
        tracing::warn!(%error, "removing what an agent of another version left");
    }
}

/// `refused` is what was said last time, so that it is said once.
fn all_wanted(pods: &reflector::Store<Pod>, mesh: &Rules, refused: &mut BTreeSet<String>) -> Vec<Wanted> {
    let (all, refusals): (Vec<_>, Vec<_>) =
        pods.state().iter().filter_map(|pod| wanted(pod, mesh)).partition(Result::is_ok);
    let refusals: BTreeSet<String> = refusals.into_iter().filter_map(Result::err).collect();
    for refusal in refusals.difference(refused) {
        tracing::warn!("{refusal}; it stays as it is");
    }
    *refused = refusals;
    all.into_iter().flatten().collect()
}

struct Pods(reflector::Store<Pod>);

impl Pods {
    /// Whether all pods have been listed once.
    fn listed(&self) -> bool {
        self.0.wait_until_ready().now_or_never().is_some()
    }
}

fn watch_pods(client: &Client, node: &str) -> (Pods, BoxStream<'static, ()>) {
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}")).labels(PROXY_UUID);
    let events = watcher(Api::<Pod>::all(client.clone()), config).default_backoff();
    let events = events.inspect_err(|error| tracing::warn!(%error, "watching the node's pods; trying again"));
    let changes = reflector::reflector(writer, events).map(|_| ()).boxed();
    (Pods(store), changes)
}

/// Keeps `rules` as the MeshConfig has them. Without one, pods have only their own.
fn watch_mesh_config(
    client: &Client,
    (namespace, name): &(String, String),
    rules: Arc<Mutex<Rules>>,
) -> BoxStream<'static, ()> {
    let kind = GroupVersionKind::gvk("config.flomesh.io", "v1alpha3", "MeshConfig");
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &ApiResource::from_gvk(&kind));
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let set = move |new| *rules.lock().unwrap_or_else(PoisonError::into_inner) = new;
    watcher(api, config)
        .default_backoff()
        .filter_map(move |event| {
            match event {
                Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => match mesh_rules(&object.data)
                {
                    Ok(rules) => set(rules),
                    Err(error) => tracing::warn!(%error, "the MeshConfig's lists are not used; the former ones stay"),
                },
                Ok(watcher::Event::Delete(_)) => set(Rules::default()),
                Ok(_) => return std::future::ready(None),
                Err(error) => {
                    tracing::warn!(%error, "watching the MeshConfig; trying again");
                    return std::future::ready(None);
                }
            }
            std::future::ready(Some(()))
        })
        .boxed()
}
