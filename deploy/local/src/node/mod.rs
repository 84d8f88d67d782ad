//! The node agent: runs the pods bound to the node as processes of this machine.
//!
//! A pod goes one way: [`pods`] (the watch) → [`pod`] (surroundings, order of containers, end) → [`container`] (runs, probes,
//! restarts) → [`launch`] and [`rootfs`] (namespaces, process). What becomes of it is noted on a [`status::Board`], which
//! [`publish`] carries to the API.

mod backoff;
mod cgroup;
mod changes;
mod console;
mod container;
mod context;
mod devices;
mod env;
mod eviction;
mod health;
mod image;
mod insecure;
mod intercept;
mod launch;
mod limits;
mod logs;
mod pod;
mod pods;
mod probe;
mod prober;
mod publish;
mod registration;
mod rootfs;
mod session;
mod spawn;
mod status;
mod terminal;
mod termination;
mod token;
mod volume;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};

use crate::event::Recorder;
use crate::net::NodeNet;
use crate::tasks::Tasks;

pub use cgroup::{Cgroup, CgroupError};
pub use image::{Image, Images, PROGRAMS_DIR};
pub use intercept::{Interception, PROXY_CONTAINER, PROXY_UUID};
pub use launch::kill;
pub use logs::Want;
pub use rootfs::{RootError, can_build_roots};
pub use volume::unmount_below;

use context::Context;
use logs::ContainerLog;
use pods::Workers;
use status::{Board, State};

/// What a node agent works with.
pub struct AgentConfig {
    pub client: Client,
    pub net: Arc<NodeNet>,
    pub node_name: String,
    pub images: Images,
    pub events: Recorder,
    /// Where volumes and logs are kept.
    pub data_dir: PathBuf,
    /// The cluster's cgroup; pods get theirs below it.
    pub cgroup: Cgroup,
    /// Before a container's second restart in a row.
    pub restart_delay: Duration,
    pub interception: Interception,
}

/// A running node agent.
pub struct Agent {
    client: Client,
    net: Arc<NodeNet>,
    node_name: String,
    images: Images,
    events: Recorder,
    dirs: Dirs,
    cgroup: Cgroup,
    /// The kernel's controllers that limits can be put in force with.
    controllers: Vec<&'static str>,
    restart_delay: Duration,
    interception: Interception,
    /// News of what volumes are made of.
    changes: broadcast::Sender<changes::Change>,
    tasks: Tasks,
    workers: Workers,
    /// Pods on this node by namespace and name.
    shown: Mutex<BTreeMap<(String, String), Shown>>,
}

/// What others may ask about a pod.
struct Shown {
    uid: Option<String>,
    first_container: String,
    board: watch::Receiver<Board>,
    logs: BTreeMap<String, Arc<ContainerLog>>,
    /// While its containers may run.
    live: Option<Arc<Context>>,
}

/// Why something about a pod can't be had.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("pod {namespace}/{name} does not run on this node")]
    NoPod { namespace: String, name: String },
    #[error("pod {pod} has no container {container}")]
    NoContainer { pod: String, container: String },
    #[error("container {container} of pod {pod} is not running")]
    NotRunning { pod: String, container: String },
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    Waiting { pod: String, container: String, reason: String },
    #[error("pod {pod} can't be connected to on port {port}: {source}")]
    Dial { pod: String, port: u16, source: io::Error },
    #[error("the log of container {container} of pod {pod} can't be read: {source}")]
    Log { pod: String, container: String, source: io::Error },
}

/// Paths in the cluster's data directory.
#[derive(Debug, Clone)]
struct Dirs {
    root: PathBuf,
}

impl Dirs {
    fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    fn pod(&self, pod: &Pod) -> PathBuf {
        self.root.join("pods").join(pod.uid().unwrap_or_default())
    }

    fn termination(&self, pod: &Pod) -> PathBuf {
        self.pod(pod).join("termination")
    }

    fn volumes(&self, pod: &Pod) -> PathBuf {
        self.pod(pod).join("volumes")
    }

    fn logs(&self, pod: &Pod) -> PathBuf {
        let name =
            format!("{}_{}_{}", pod.namespace().unwrap_or_default(), pod.name_any(), pod.uid().unwrap_or_default());
        self.root.join("logs").join(name)
    }
}

impl Agent {
    /// Registers the node and begins to run its pods.
    pub async fn start(config: AgentConfig) -> Result<Arc<Self>, kube::Error> {
        let node = registration::register(&config.client, &config.node_name, &config.net).await?;
        let controllers = Cgroup::root().map(|root| root.delegate(&limits::CONTROLLERS)).unwrap_or_default();
        let controllers = config.cgroup.delegate(&controllers);
        let missing: Vec<_> = limits::CONTROLLERS.into_iter().filter(|name| !controllers.contains(name)).collect();
        if !missing.is_empty() {
            let message = format!(
                "limits of {} are not put in force: this machine's cgroup v2 lacks the controller; it may be in use by \
                 cgroup v1 (boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all)",
                missing.join(" and ")
            );
            config.events.named("kubelet").warn(&node, "LimitsNotEnforced", &message);
        }
        let tasks = Tasks::default();
        let agent = Arc::new(Self {
            net: config.net,
            node_name: config.node_name,
            images: config.images,
            events: config.events.named("kubelet"),
            dirs: Dirs { root: config.data_dir },
            cgroup: config.cgroup,
            controllers,
            restart_delay: config.restart_delay,
            interception: config.interception,
            changes: changes::start(&config.client, &tasks),
            client: config.client,
            tasks,
            workers: Workers::default(),
            shown: Mutex::default(),
        });
        agent.tasks.spawn(pods::watch(Arc::clone(&agent)));
        Ok(agent)
    }

    /// Ends all pods' processes, within `grace`. The API keeps the pods.
    pub async fn shutdown(&self, grace: Duration) {
        self.tasks.stop().await;
        self.workers.shutdown(grace).await;
    }

    /// Starts nothing any more, without waiting for anything.
    pub fn abandon(&self) {
        self.tasks.cancel();
        self.workers.abandon();
    }

    /// Connects to a port of a pod as from inside it: to `127.0.0.1`.
    pub async fn dial_pod(&self, namespace: &str, name: &str, port: u16) -> Result<TcpStream, AskError> {
        let netns = self.ask(namespace, name, |shown| shown.live.as_ref().map(|ctx| ctx.net.netns.clone()))?;
        let not_running = || AskError::NotRunning { pod: name.to_owned(), container: "(any)".to_owned() };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let dialed = netns.ok_or_else(not_running)?.dial(addr).await;
        dialed.map_err(|source| AskError::Dial { pod: name.to_owned(), port, source })
    }

    /// The process id (on this machine) of a running container.
    pub fn container_pid(&self, namespace: &str, name: &str, container: &str) -> Result<i32, AskError> {
        let state = self.ask(namespace, name, |shown| {
            let board = shown.board.borrow();
            board.containers.iter().find(|c| c.name == container).map(|c| c.state.clone())
        })?;
        let (pod, container) = (name.to_owned(), container.to_owned());
        match state {
            Some(State::Running { pid, .. }) => Ok(pid),
            Some(_) => Err(AskError::NotRunning { pod, container }),
            None => Err(AskError::NoContainer { pod, container }),
        }
    }

    /// Whether a pod of the mesh is intercepted.
    pub fn intercepts(&self) -> bool {
        self.interception.in_use()
    }

    /// Whether the pod is here.
    pub fn runs(&self, namespace: &str, name: &str) -> bool {
        self.shown().contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// A container's log; the pod's first container's when none is named.
    pub fn logs(
        &self,
        namespace: &str,
        name: &str,
        container: Option<&str>,
        want: Want,
    ) -> Result<BoxStream<'static, Bytes>, AskError> {
        let (container, log, waiting) = self.ask(namespace, name, |shown| {
            let container = container.unwrap_or(&shown.first_container).to_owned();
            let waiting =
                shown.board.borrow().containers.iter().find(|c| c.name == container).and_then(|c| match &c.state {
                    State::Waiting { reason, .. } if c.last.is_none() => Some(reason.clone()),
                    _ => None,
                });
            let log = shown.logs.get(&container).cloned();
            (container, log, waiting)
        })?;
        let pod = name.to_owned();
        let Some(log) = log else { return Err(AskError::NoContainer { pod, container }) };
        if let Some(reason) = waiting {
            return Err(AskError::Waiting { pod, container, reason });
        }
        log.read(want).map_err(|source| AskError::Log { pod, container, source })
    }

    fn ask<T>(&self, namespace: &str, name: &str, question: impl FnOnce(&Shown) -> T) -> Result<T, AskError> {
        let shown = self.shown();
        let found = shown.get(&(namespace.to_owned(), name.to_owned())).map(question);
        found.ok_or_else(|| AskError::NoPod { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<(String, String), Shown>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, pod: &Pod, board: &watch::Sender<Board>, logs: &BTreeMap<String, Arc<ContainerLog>>) {
        let first = pod.spec.as_ref().and_then(|s| s.containers.first()).map(|c| c.name.clone());
        let shown = Shown {
            uid: pod.uid(),
            first_container: first.unwrap_or_default(),
            board: board.subscribe(),
            logs: logs.clone(),
            live: None,
        };
        self.shown().insert(key(pod), shown);
    }

    /// Lets others reach into the pod.
    fn plug(&self, ctx: &Arc<Context>) {
        if let Some(shown) = self.shown().get_mut(&key(&ctx.pod)).filter(|shown| shown.uid == ctx.pod.uid()) {
            shown.live = Some(Arc::clone(ctx));
        }
    }

    /// Ends the pod's network for others. Its log can still be read.
    fn unplug(&self, pod: &Pod) {
        if let Some(shown) = self.shown().get_mut(&key(pod)).filter(|shown| shown.uid == pod.uid()) {
            shown.live = None;
        }
    }

    fn forget(&self, pod: &Pod) {
        let mut shown = self.shown();
        if shown.get(&key(pod)).is_some_and(|shown| shown.uid == pod.uid()) {
            shown.remove(&key(pod));
        }
    }

    fn cgroup_of(&self, pod: &Pod) -> Cgroup {
        self.cgroup.child(&format!("pod{}", pod.uid().unwrap_or_default()))
    }
}

fn key(pod: &Pod) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The machine's memory, from `/proc/meminfo`; 0 when that can't be read.
fn machine_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
