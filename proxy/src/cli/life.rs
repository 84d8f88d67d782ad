//! The life of a sidecar's process: from its predecessor, if there is one, to its successor, or to a signal.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::SidecarArgs;
use crate::accept::{Inherited, Role};
use crate::control::admin::{self, ADMIN_ADDRESS, Admin};
use crate::control::{Control, Environment, State};
use crate::handover::{self, Giver, Predecessor};
use crate::limits::Limits;
use crate::sidecar::{Config, Handle, Resolver, Sidecar, Sources};
use crate::telemetry::Telemetry;
use crate::tls::MeshTls;
use crate::workers::Workers;

/// How long after a start connections wait for the first certificate, rather than being refused.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Runs until a signal, or until a successor serves.
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
    let prepared = Sidecar::prepare(config(args, workers), sources.clone(), &mut inherited)?;
    let (identity, controller) = (environment.identity.clone(), environment.controller.clone());
    let control = Control::start(environment, sources.tls.clone(), sources.snapshots.clone());
    let listener = admin_listener(&mut inherited)
        .with_context(|| format!("cannot listen on {ADMIN_ADDRESS} for the admin port"))?;
    let admin_socket = listener.as_fd().try_clone_to_owned().context("no file descriptor is left")?;
    let giver = args.handover.then(|| Giver::new(handover::NAME, &workload, &mut inherited)).transpose()?;
    drop(inherited);

    if let Some(predecessor) = &mut predecessor {
        tracing::info!("a proxy serves here already: this one takes its place once it is ready");
        tokio::select! {
            () = may_serve(predecessor, prepared.handle(), control.state()) => {}
            () = signals.next() => {
                tracing::info!("ended before it was ready: the other proxy serves on");
                return Ok(());
            }
        }
    }
    let handle = prepared.serve();
    let admin = Admin {
        tls: sources.tls,
        snapshots: sources.snapshots,
        state: control.state(),
        data_path: handle.data_path(),
        log: telemetry.level(),
    };
    let admin = tokio::spawn(admin::serve(listener, admin));
    if let Some(predecessor) = predecessor {
        predecessor.retire().await;
        tracing::info!("this proxy has taken the place of the other one");
    }
    tracing::info!(%identity, %controller, "the sidecar has started");

    let sockets = || {
        let mut sockets = handle.sockets()?;
        sockets.push((Role::Admin, admin_socket.try_clone()?));
        Ok(sockets)
    };
    let succeeded = async {
        match giver {
            Some(giver) => giver.handed_over(sockets, || handle.is_ready()).await,
            None => std::future::pending().await,
        }
    };
    let finished = tokio::select! {
        () = succeeded => {
            admin.abort();
            drop(admin_socket);
            tracing::info!("a successor serves: requests under way are finished");
            handle.hand_over().await
        }
        () = signals.next() => {
            serve_on(Duration::from_secs(args.grace_seconds), &mut signals).await;
            tracing::info!("ending: requests under way are finished");
            handle.drain().await
        }
    };
    tracing::info!(finished, "ended");
    Ok(())
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

fn admin_listener(inherited: &mut Inherited) -> io::Result<TcpListener> {
    let listener = match inherited.tcp(Role::Admin, ADMIN_ADDRESS) {
        Some(listener) => listener,
        None => std::net::TcpListener::bind(ADMIN_ADDRESS)?,
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
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
