//! One pod over its life on this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::Agent;
use super::cgroup::CgroupError;
use super::console::Consoles;
use super::container::supervise;
use super::context::Context;
use super::env::Facts;
use super::eviction;
use super::intercept::InterceptionError;
use super::logs::ContainerLog;
use super::publish;
use super::status::{Board, Role, State};
use super::volume::{self, VolumeError};
use crate::net::NetError;

/// The longest pause between attempts to make a pod's surroundings.
const SETUP_RETRY_MAX: Duration = Duration::from_secs(30);
/// What a sidecar gets at least when the application has used up the pod's grace period (as the kubelet does).
const SIDECAR_GRACE: Duration = Duration::from_secs(2);

/// What is wanted of a pod on this node.
#[derive(Debug, Clone)]
pub(super) enum Desired {
    /// As its manifest says.
    Run(Arc<Pod>),
    /// Ended within the grace period, then deleted from the API.
    Delete { pod: Arc<Pod>, deadline: Instant },
    /// Ended at once, for taking more than it may; the API keeps the pod.
    Evicted(Arc<Pod>),
    /// The API no longer has it: ended at once.
    Gone,
    /// The cluster is going down; the API keeps the pod.
    Shutdown { deadline: Instant },
}

impl Desired {
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Run(_) => None,
            Self::Delete { deadline, .. } | Self::Shutdown { deadline } => Some(*deadline),
            Self::Evicted(_) | Self::Gone => Some(Instant::now()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum SetupError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Interception(#[from] InterceptionError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error("spec.{0} is not supported by the local cluster; remove it from the pod")]
    Unsupported(&'static str),
}

/// Runs a pod until it is deleted. Returns when nothing of it is left on this machine.
pub(super) async fn run(agent: Arc<Agent>, pod: Arc<Pod>, mut desired: watch::Receiver<Desired>) {
    let board = watch::Sender::new(Board::new(&pod, agent.net.plan().gateway().to_string(), Timestamp::now()));
    let publisher = publish::start(&agent, &pod, &desired, &board);
    let logs = logs(&agent, &pod);
    agent.show(&pod, &board, &logs);

    let ready = tokio::select! {
        ctx = setup(&agent, &pod, &board, &logs) => Some(ctx),
        () = ending(&mut desired) => None,
    };
    if let Some(ctx) = ready {
        live(&Arc::new(ctx), &mut desired).await;
        agent.unplug(&pod);
    }
    // At a shutdown the pod is not over: it is started again with the cluster.
    if !matches!(&*desired.borrow(), Desired::Shutdown { .. }) {
        board.send_modify(|board| board.over = true);
    }
    clean_up(&agent, &pod).await;
    // A pod that completed stays to be read about, until someone deletes it.
    desired.wait_for(|desired| !matches!(desired, Desired::Run(_) | Desired::Evicted(_))).await.ok();
    publisher.stop().await;
    agent.forget(&pod);
    let why = desired.borrow().clone();
    if !matches!(why, Desired::Shutdown { .. }) {
        logs.values().for_each(|log| log.remove());
        std::fs::remove_dir_all(agent.dirs.logs(&pod)).ok();
    }
    if matches!(why, Desired::Delete { .. }) {
        delete(&agent, &pod).await;
    }
}

/// Makes the pod's surroundings, however often it takes.
async fn setup(
    agent: &Arc<Agent>,
    pod: &Arc<Pod>,
    board: &watch::Sender<Board>,
    logs: &BTreeMap<String, Arc<ContainerLog>>,
) -> Context {
    let mut pause = Duration::from_millis(500);
    loop {
        match try_setup(agent, pod, board, logs).await {
            Ok(ctx) => return ctx,
            Err(error) => {
                let message = error.to_string();
                tracing::warn!(pod = pod.name_any(), error = message, "the pod's surroundings could not be made");
                let reason =
                    if matches!(error, SetupError::Volume(_)) { "FailedMount" } else { "FailedCreatePodSandBox" };
                agent.events.warn(pod.as_ref(), reason, &message);
                board.send_modify(|board| {
                    for container in &mut board.containers {
                        if let State::Waiting { message: shown, .. } = &mut container.state {
                            *shown = Some(message.clone());
                        }
                    }
                });
                clean_up(agent, pod).await;
                sleep(pause).await;
                pause = (pause * 2).min(SETUP_RETRY_MAX);
            }
        }
    }
}

async fn try_setup(
    agent: &Arc<Agent>,
    pod: &Arc<Pod>,
    board: &watch::Sender<Board>,
    logs: &BTreeMap<String, Arc<ContainerLog>>,
) -> Result<Context, SetupError> {
    let spec = pod.spec.as_ref();
    for (field, set) in [("hostNetwork", spec.and_then(|s| s.host_network)), ("hostIPC", spec.and_then(|s| s.host_ipc))]
    {
        if set == Some(true) {
            return Err(SetupError::Unsupported(field));
        }
    }
    let net = agent.net.add_pod().await?;
    let facts = Facts {
        pod_ips: net.ips().iter().map(ToString::to_string).collect(),
        host_ip: agent.net.plan().gateway().to_string(),
        node_name: agent.node_name.clone(),
        kubernetes: agent.net.plan().kubernetes,
    };
    let cgroup = agent.cgroup_of(pod);
    cgroup.create()?;
    cgroup.delegate(&agent.controllers);
    let intercepted = agent.interception.attach(pod, &net.netns, &cgroup).await?;
    let volumes = volume::prepare(&agent.client, pod, &facts, &agent.dirs.volumes(pod)).await?;
    board.send_modify(|board| {
        board.pod_ips.clone_from(&facts.pod_ips);
        for container in &mut board.containers {
            if let State::Waiting { message, .. } = &mut container.state {
                *message = None;
            }
        }
    });
    Ok(Context {
        agent: Arc::clone(agent),
        pod: Arc::clone(pod),
        net,
        cgroup,
        facts,
        volumes,
        board: board.clone(),
        logs: logs.clone(),
        consoles: Consoles::default(),
        _intercepted: intercepted,
    })
}

/// Containers that can be told to stop, in the order they were started.
struct Group {
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Group {
    fn start(ctx: &Arc<Context>, container: Container, role: Role) -> Self {
        let (stop, stopped) = watch::channel(None);
        Self { stop, task: tokio::spawn(supervise(Arc::clone(ctx), Arc::new(container), role, stopped)) }
    }
}

/// From the first init container to the end of the last container.
async fn live(ctx: &Arc<Context>, desired: &mut watch::Receiver<Desired>) {
    let (of_pod, wanted) = (Arc::clone(ctx), desired.clone());
    let fresh = tokio::spawn(async move {
        let news = of_pod.agent.changes.subscribe();
        volume::keep_fresh(of_pod.agent.client.clone(), &of_pod.volumes, &of_pod.facts, news, wanted).await;
    });
    let measured = tokio::spawn(eviction::watch(Arc::clone(ctx)));
    ctx.agent.plug(ctx);
    let mut sidecars: Vec<Group> = Vec::new();
    if init(ctx, &mut sidecars, desired).await {
        let spec = ctx.pod.spec.clone().unwrap_or_default();
        let (stop, stopped) = watch::channel(None);
        let mut mains = JoinSet::new();
        for container in spec.containers {
            mains.spawn(supervise(Arc::clone(ctx), Arc::new(container), Role::Main, stopped.clone()));
        }
        while !mains.is_empty() {
            tokio::select! {
                _ = mains.join_next() => {}
                deadline = next_deadline(desired, &stop) => {
                    stop.send_replace(Some(deadline));
                }
            }
        }
    }
    // Sidecars serve the application to its last word, and one another in the order they were started.
    while let Some(mut sidecar) = sidecars.pop() {
        let wanted = desired.borrow().deadline().unwrap_or_else(Instant::now);
        let at_once = wanted <= Instant::now() && matches!(&*desired.borrow(), Desired::Gone | Desired::Evicted(_));
        sidecar.stop.send_replace(Some(if at_once { wanted } else { wanted.max(Instant::now() + SIDECAR_GRACE) }));
        (&mut sidecar.task).await.ok();
    }
    fresh.abort();
    measured.abort();
}

/// Runs init containers one after the other; sidecars among them stay. False if the pod ends here.
async fn init(ctx: &Arc<Context>, sidecars: &mut Vec<Group>, desired: &mut watch::Receiver<Desired>) -> bool {
    let containers = ctx.pod.spec.iter().flat_map(|s| s.init_containers.clone().unwrap_or_default());
    for container in containers.collect::<Vec<_>>() {
        let name = container.name.clone();
        let role = ctx.seen(&name).map_or(Role::Init, |seen| seen.role);
        let mut group = Group::start(ctx, container, role);
        if role == Role::Sidecar {
            let mut board = ctx.board.subscribe();
            let started = board.wait_for(|board| board.containers.iter().any(|c| c.name == name && c.started));
            let started = tokio::select! {
                _ = started => true,
                () = ending(desired) => false,
            };
            sidecars.push(group);
            if !started {
                return false;
            }
            continue;
        }
        loop {
            tokio::select! {
                _ = &mut group.task => break,
                deadline = next_deadline(desired, &group.stop) => {
                    group.stop.send_replace(Some(deadline));
                }
            }
        }
        let succeeded = matches!(ctx.seen(&name).map(|c| c.state), Some(State::Ended(ended)) if ended.code == 0);
        if !succeeded || desired.borrow().deadline().is_some() {
            return false;
        }
    }
    ctx.board.send_modify(|board| {
        for container in board.containers.iter_mut().filter(|c| c.role == Role::Main) {
            if let State::Waiting { reason, .. } = &mut container.state {
                *reason = "ContainerCreating".into();
            }
        }
    });
    true
}

/// The deadline, when there is one that `stop` has not been told yet.
async fn next_deadline(desired: &mut watch::Receiver<Desired>, stop: &watch::Sender<Option<Instant>>) -> Instant {
    loop {
        let wanted = desired.borrow_and_update().deadline();
        let told = *stop.borrow();
        match (wanted, told) {
            (Some(wanted), None) => return wanted,
            (Some(wanted), Some(told)) if wanted < told => return wanted,
            _ => {}
        }
        if desired.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Resolves once the pod is no longer to run.
async fn ending(desired: &mut watch::Receiver<Desired>) {
    desired.wait_for(|desired| desired.deadline().is_some()).await.ok();
}

/// Removes processes, cgroups and volumes. The network goes with the context and the processes.
async fn clean_up(agent: &Agent, pod: &Pod) {
    if let Err(error) = agent.cgroup_of(pod).remove().await {
        tracing::warn!(pod = pod.name_any(), %error, "the pod's cgroup stays behind; it is tried again at the next start");
    }
    let in_memory = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(volume::is_in_memory);
    let dir = agent.dirs.pod(pod);
    if let Err(error) = if in_memory { volume::unmount_below(&dir) } else { Ok(()) } {
        tracing::warn!(pod = pod.name_any(), %error, "the pod's memory stays in use");
    }
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(pod = pod.name_any(), %error, "the pod's volumes stay behind");
    }
}

/// Tells the API that nothing is left of the pod, until it takes note.
async fn delete(agent: &Agent, pod: &Pod) {
    let api: Api<Pod> = Api::namespaced(agent.client.clone(), &pod.namespace().unwrap_or_default());
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    loop {
        match api.delete(&pod.name_any(), &parameters).await {
            Ok(_) => return,
            // Gone, or another pod has the name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            Err(error) => {
                tracing::warn!(pod = pod.name_any(), %error, "the pod's end could not be reported; trying again")
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}

fn logs(agent: &Agent, pod: &Pod) -> BTreeMap<String, Arc<ContainerLog>> {
    let spec = pod.spec.clone().unwrap_or_default();
    let containers = spec.init_containers.into_iter().flatten().chain(spec.containers);
    containers.map(|c| (c.name.clone(), Arc::new(ContainerLog::new(agent.dirs.logs(pod).join(&c.name))))).collect()
}
