//! The life of a sidecar's process: from its predecessor, if there is one, to its successor, or to a signal.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::SidecarArgs;
use crate::accept::{Inherited, Role};
use crate::control::admin::{self, ADMIN_ADDRESS, Admin};
use crate::control::{Control, Environment, State};
use crate::handover::{self, Giver, Predecessor, Successor};
use crate::limits::Limits;
use crate::sidecar::{Config, Handle, Prepared, Resolver, Sidecar, Sources};
use crate::telemetry::{LogLevel, Telemetry};
use crate::tls::MeshTls;
use crate::workers::Workers;

/// How long after a start connections wait for the first certificate, rather than being refused.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Runs until a signal, or until a successor serves and what is under way here is finished.
pub async fn run(
    args: &SidecarArgs,
    environment: Environment,
    raised: io::Result<()>,
    workers: Workers,
) -> anyhow::Result<()> {
    let telemetry = Telemetry::start(&args.log, &environment.pod)?;
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let mut signals = Signals::new()?;
    let workload = format!("{} in {}", environment.identity, environment.node_id());
    let (mut predecessor, inherited) = match args.handover {
        true => Predecessor::find(handover::NAME, &workload).await?.unzip(),
        false => (None, None),
    };
    let mut inherited = inherited.unwrap_or_default();
    let sources = Sources { tls: MeshTls::starting(START_PATIENCE), ..Sources::default() };
    let prepared = Sidecar::prepare(config(args, workers.clone()), sources.clone(), &mut inherited)?;
    let (identity, controller) = (environment.identity.clone(), environment.controller.clone());
    let control = Control::start(environment, sources.tls.clone(), sources.snapshots.clone());
    let process = Process { args, workers, sources, control, log: telemetry.level() };
    let listener = admin_listener(&mut inherited)?;
    let mut giver = args.handover.then(|| Giver::new(handover::NAME, &workload, &mut inherited)).transpose()?;
    drop(inherited);

    if let Some(predecessor) = &mut predecessor {
        tracing::info!("a proxy serves here already: this one takes its place once it is ready");
        tokio::select! {
            () = may_serve(predecessor, prepared.handle(), process.control.state()) => {}
            () = signals.next() => {
                tracing::info!("ended before it was ready: the other proxy serves on");
                return Ok(());
            }
        }
    }
    let mut serving = process.serve(prepared, listener)?;
    if let Some(predecessor) = &mut predecessor {
        predecessor.retire().await;
        tracing::info!("this proxy has taken the place of the other one");
    }
    tracing::info!(%identity, %controller, "the sidecar has started");

    // They take no more, and finish what is under way.
    let mut retired: Vec<Handle> = Vec::new();
    let finished = loop {
        let succeeded = async {
            match &giver {
                Some(giver) => giver.handed_over(|| serving.sockets(), || serving.handle.is_ready()).await,
                None => std::future::pending().await,
            }
        };
        let successor = tokio::select! {
            successor = succeeded => Some(successor),
            () = signals.next() => None,
        };
        if let Some(predecessor) = predecessor.take() {
            predecessor.ended().await;
        }
        let Some(successor) = successor else {
            serve_on(Duration::from_secs(args.grace_seconds), &mut signals).await;
            tracing::info!("ending: requests under way are finished");
            retired.push(serving.handle);
            break join_all(retired.iter().map(Handle::drain)).await;
        };
        tracing::info!("a successor serves: requests under way are finished");
        let kept = (giver.take(), serving.sockets());
        retired.push(serving.retire());
        tokio::select! {
            // If both come together, somebody is to serve.
            biased;
            (given, sockets) = kept_until_death(successor, kept) => {
                tracing::warn!("the successor has died: this proxy serves again");
                serving = process.again(sockets.context("no file descriptor is left")?)?;
                giver = given;
                retired.retain(|handle| !handle.is_idle());
            }
            finished = join_all(retired.iter().map(Handle::hand_over)) => break finished,
        }
    };
    let finished = finished.into_iter().all(|finished| finished);
    tracing::info!(finished, "ended");
    Ok(())
}

/// What a sidecar is made with, once and again.
struct Process<'a> {
    args: &'a SidecarArgs,
    workers: Workers,
    sources: Sources,
    control: Control,
    log: Option<LogLevel>,
}

/// A sidecar that takes connections, and its admin port.
struct Serving {
    handle: Handle,
    admin: JoinHandle<()>,
    admin_socket: OwnedFd,
}

impl Process<'_> {
    fn serve(&self, prepared: Prepared, listener: TcpListener) -> anyhow::Result<Serving> {
        let admin_socket = listener.as_fd().try_clone_to_owned().context("no file descriptor is left")?;
        let handle = prepared.serve();
        let admin = Admin {
            tls: self.sources.tls.clone(),
            snapshots: self.sources.snapshots.clone(),
            state: self.control.state(),
            data_path: handle.data_path(),
            log: self.log.clone(),
        };
        Ok(Serving { handle, admin: tokio::spawn(admin::serve(listener, admin)), admin_socket })
    }

    /// A sidecar on the sockets of one that takes no more: it is its own successor.
    fn again(&self, sockets: Vec<(Role, OwnedFd)>) -> anyhow::Result<Serving> {
        let mut inherited = Inherited::new(sockets);
        let config = config(self.args, self.workers.clone());
        let prepared = Sidecar::prepare(config, self.sources.clone(), &mut inherited)?;
        self.serve(prepared, admin_listener(&mut inherited)?)
    }
}

impl Serving {
    /// For who takes its place.
    fn sockets(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        let mut sockets = self.handle.sockets()?;
        sockets.push((Role::Admin, self.admin_socket.try_clone()?));
        Ok(sockets)
    }

    /// The admin port, which shows one proxy, is no longer served; the other ones are until the handle is drained.
    fn retire(self) -> Handle {
        self.admin.abort();
        self.handle
    }
}

/// Gives back what a proxy needs to serve again once its successor has died. Never if that is told to end: `kept` is let go then, so
/// that nobody waits at a socket that is not served.
async fn kept_until_death<T>(successor: Successor, kept: T) -> T {
    if successor.died().await {
        return kept;
    }
    drop(kept);
    tracing::info!("the successor is told to end: nobody takes its place");
    std::future::pending().await
}

fn config(args: &SidecarArgs, workers: Workers) -> Config {
    Config {
        limits: Limits {
            connections: args.max_connections,
            requests: args.max_requests,
            drain_timeout: Duration::from_secs(args.drain_seconds),
            ..Limits::default()
        },
        pod_ip: args.pod_ip,
        owner: (args.pod_controller_kind.clone(), args.pod_controller_name.clone()),
        resolver: Resolver::of_host(),
        collector: crate::telemetry::endpoint(),
        field_names: args.field_names,
        workers,
        ..Config::default()
    }
}

fn admin_listener(inherited: &mut Inherited) -> anyhow::Result<TcpListener> {
    let inherited = inherited.tcp(Role::Admin, ADMIN_ADDRESS);
    let listen = || {
        let listener = match inherited {
            Some(listener) => listener,
            None => std::net::TcpListener::bind(ADMIN_ADDRESS)?,
        };
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    listen().with_context(|| format!("cannot listen on {ADMIN_ADDRESS} for the admin port"))
}

/// Waits until this proxy can serve as well as its predecessor, or has to.
async fn may_serve(predecessor: &mut Predecessor, handle: &Handle, state: watch::Receiver<State>) {
    if !predecessor.is_ready() {
        return;
    }
    tokio::select! {
        () = ready(handle, state) => {}
        () = predecessor.gone() => tracing::warn!("the other proxy has ended before this one is ready"),
    }
}

async fn ready(handle: &Handle, mut state: watch::Receiver<State>) {
    while !handle.is_ready() {
        if state.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// Goes on for `grace`, or until the next signal.
async fn serve_on(grace: Duration, signals: &mut Signals) {
    if !grace.is_zero() {
        tracing::info!(seconds = grace.as_secs(), "ending: for a while everything is served as before");
        // Whichever comes first.
        let _ = tokio::time::timeout(grace, signals.next()).await;
    }
}

/// What asks a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
