//! One container over its life: started, probed, ended, started again.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use kube::ResourceExt;
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::backoff::Backoff;
use super::console::Console;
use super::context::Context;
use super::launch::{Exit, Process, Streams, launch};
use super::limits::Limits;
use super::logs::{Stream, sink_of};
use super::probe;
use super::prober::{self, Finding};
use super::status::{Ended, Role, State};

/// By when the container must have ended, once it is asked to.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

/// How long a container that fails its liveness probe may take to end, unless the pod says otherwise.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);
/// Between attempts to prepare a container whose surroundings are incomplete (a missing ConfigMap, say).
const PREPARE_RETRY: Duration = Duration::from_secs(2);

/// Runs a container again and again, as its restart policy says, until it is done or told to stop.
pub(super) async fn supervise(ctx: Arc<Context>, container: Arc<Container>, role: Role, mut stop: Stop) {
    let mut backoff = Backoff::new(ctx.agent.restart_delay);
    for run in 0_u32.. {
        let Some(ended) = run_once(&ctx, &container, run, &mut stop).await else { return };
        let again = !is_stopped(&stop) && restarts(&ctx, role, &ended);
        let ran = Duration::try_from(ended.finished.duration_since(ended.started)).unwrap_or_default();
        let name = &container.name;
        ctx.update(name, |seen| {
            (seen.started, seen.ready) = (false, false);
            seen.state = State::Ended(ended.clone());
        });
        if !again {
            return;
        }
        let delay = backoff.after(ran);
        if !delay.is_zero() {
            let pod = ctx.pod.name_any();
            let message =
                format!("back-off {delay:?} restarting failed container={name} pod={pod}: {}", describe(&ended));
            ctx.agent.events.warn(ctx.pod.as_ref(), "BackOff", &message);
            ctx.update(name, |seen| {
                seen.last = Some(ended.clone());
                seen.state = State::Waiting { reason: "CrashLoopBackOff".into(), message: Some(message) };
            });
            tokio::select! {
                () = sleep(delay) => {}
                () = stopped(&mut stop) => {
                    ctx.update(name, |seen| seen.state = State::Ended(ended));
                    return;
                }
            }
        }
        ctx.update(name, |seen| {
            seen.last = Some(ended);
            seen.restarts += 1;
        });
    }
}

fn restarts(ctx: &Context, role: Role, ended: &Ended) -> bool {
    let policy = ctx.pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    match (role, policy) {
        (Role::Sidecar, _) => true,
        (Role::Init, "Never") => false,
        (Role::Init, _) | (Role::Main, "OnFailure") => ended.code != 0,
        (Role::Main, "Never") => false,
        (Role::Main, _) => true,
    }
}

fn describe(ended: &Ended) -> String {
    match &ended.message {
        Some(message) => message.clone(),
        None => format!("exit code {}", ended.code),
    }
}

/// One run: `None` when it was told to stop before it began.
async fn run_once(ctx: &Arc<Context>, container: &Arc<Container>, run: u32, stop: &mut Stop) -> Option<Ended> {
    let name = &container.name;
    let launched = loop {
        if is_stopped(stop) {
            return None;
        }
        match ctx.prepare(container).await {
            Ok(spec) => break start(ctx, container, spec, run).await,
            Err(error) => {
                let (reason, message) = (error.reason(), error.to_string());
                let waiting = State::Waiting { reason: reason.into(), message: Some(message.clone()) };
                if ctx.seen(name).is_some_and(|seen| seen.state != waiting) {
                    ctx.agent.events.warn(ctx.pod.as_ref(), "Failed", &format!("Error: {message}"));
                    ctx.update(name, |seen| seen.state = waiting);
                }
                tokio::select! {
                    () = sleep(PREPARE_RETRY) => {}
                    () = stopped(stop) => return None,
                }
            }
        }
    };
    let (started, id) = (Timestamp::now(), ctx.run_id(name, run));
    let killed_before = ctx.cgroup_of(name).oom_kills();
    let ended = |exit: Exit, reason: &str, message| Ended {
        code: exit.code,
        signal: exit.signal,
        reason: reason.into(),
        message,
        started,
        finished: Timestamp::now(),
        id: id.clone(),
    };
    let (process, output) = match launched {
        Ok(launched) => launched,
        Err(message) => {
            ctx.agent.events.warn(ctx.pod.as_ref(), "Failed", &format!("Error: {message}"));
            return Some(ended(Exit { code: 128, signal: None }, "StartError", Some(message)));
        }
    };
    let output = tokio::spawn(output);
    ctx.agent.events.note(ctx.pod.as_ref(), "Started", &format!("Started container {name}"));
    ctx.update(name, |seen| {
        seen.id.clone_from(&id);
        seen.started = container.startup_probe.is_none();
        seen.ready = seen.started && container.readiness_probe.is_none();
        seen.state = State::Running { since: started, pid: process.pid };
    });
    let exit = attend(ctx, container, process, stop).await;
    ctx.consoles.close(container);
    // What the process leaves behind would hold its output open.
    if let Err(error) = ctx.cgroup_of(name).kill() {
        tracing::warn!(container = name, %error, "left-over processes could not be killed");
    }
    output.await.ok();
    let reason = match exit.code {
        0 => "Completed",
        _ if ctx.cgroup_of(name).oom_kills() > killed_before => "OOMKilled",
        _ => "Error",
    };
    Some(ended(exit, reason, ctx.last_words(container, exit.code)))
}

type Output = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

async fn start(
    ctx: &Context,
    container: &Container,
    spec: super::launch::Launch,
    run: u32,
) -> Result<(Process, Output), String> {
    let (cgroup, limits) = (ctx.cgroup_of(&container.name), Limits::of(container));
    cgroup.create().and_then(|()| limits.apply(&cgroup, &ctx.agent.controllers)).map_err(|e| e.to_string())?;
    let mut process = launch(spec.clone()).await.map_err(|e| e.to_string())?;
    let log = ctx.logs.get(&container.name).ok_or("the container has no log")?;
    let ends = process.take_streams();
    let outputs = ends.stdout.map(|end| (Stream::Stdout, end)).into_iter();
    let outputs = outputs.chain(ends.stderr.map(|end| (Stream::Stderr, end))).collect();
    let output = log.begin(run, outputs).map_err(|e| format!("cannot write the container's log: {e}"))?;
    let stdin = ends.stdin.map(sink_of).transpose().map_err(|e| format!("cannot keep the container's input: {e}"))?;
    ctx.consoles.open(container, Console::new(process.pid, spec, stdin, ends.terminal));
    Ok((process, Box::pin(output)))
}

/// Stays with a running process until it has ended, by itself or because it must.
async fn attend(ctx: &Arc<Context>, container: &Arc<Container>, mut process: Process, stop: &mut Stop) -> Exit {
    let (report, mut findings) = mpsc::unbounded_channel();
    let mut watchers = JoinSet::new();
    prober::start(ctx, container, &report, &mut watchers);
    let hooks = container.lifecycle.as_ref();
    if let Some(hook) = hooks.and_then(|l| l.post_start.clone()) {
        let (ctx, container, report) = (Arc::clone(ctx), Arc::clone(container), report.clone());
        watchers.spawn(async move {
            if let Err(error) = run_hook(&ctx, &container, &hook).await {
                report.send(Finding::Hopeless(format!("postStart hook failed: {error}"))).ok();
            }
        });
    }
    loop {
        tokio::select! {
            exit = process.ended() => return exit,
            () = stopped(stop) => {
                let deadline = (*stop.borrow()).unwrap_or_else(Instant::now);
                // It counts as ready, as last found, until it has ended: what is leaving still serves (EndpointSlice `serving`).
                watchers.abort_all();
                return end(ctx, container, &mut process, deadline, stop).await;
            }
            finding = findings.recv() => match finding {
                Some(Finding::Started) => ctx.update(&container.name, |seen| {
                    seen.started = true;
                    seen.ready = container.readiness_probe.is_none();
                }),
                Some(Finding::Ready(ready)) => ctx.update(&container.name, |seen| seen.ready = ready && seen.started),
                Some(Finding::Hopeless(why)) => {
                    let message = format!("Container {} will be restarted: {why}", container.name);
                    ctx.agent.events.warn(ctx.pod.as_ref(), "Killing", &message);
                    watchers.abort_all();
                    let spec = ctx.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
                    let grace = spec.and_then(|s| u64::try_from(s).ok()).map_or(DEFAULT_GRACE, Duration::from_secs);
                    return end(ctx, container, &mut process, Instant::now() + grace, stop).await;
                }
                // `report` is held here, so the channel is never closed.
                None => {}
            }
        }
    }
}

/// Ends a process: preStop hook, SIGTERM, and SIGKILL at the deadline. The deadline may come nearer meanwhile.
async fn end(
    ctx: &Arc<Context>,
    container: &Arc<Container>,
    process: &mut Process,
    deadline: Instant,
    stop: &mut Stop,
) -> Exit {
    let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
    if let Some(hook) = hook.filter(|_| deadline > Instant::now()) {
        let done = timeout_at(deadline, run_hook(ctx, container, hook)).await;
        if let Ok(Err(error)) = done {
            ctx.agent.events.warn(ctx.pod.as_ref(), "FailedPreStopHook", &format!("preStop hook failed: {error}"));
        }
    }
    process.signal(Signal::SIGTERM);
    let mut deadline = deadline;
    loop {
        tokio::select! {
            exit = process.ended() => return exit,
            () = sleep_until(deadline) => {
                if let Err(error) = ctx.cgroup_of(&container.name).kill() {
                    tracing::warn!(container = container.name, %error, "cannot kill the container");
                }
                return process.ended().await;
            }
            Ok(()) = stop.changed() => {
                deadline = (*stop.borrow()).map_or(deadline, |new| new.min(deadline));
            }
        }
    }
}

/// Runs a lifecycle hook to its end.
async fn run_hook(ctx: &Context, container: &Container, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let mut process = ctx.exec(&container.name, exec.command.clone().unwrap_or_default(), Streams::None).await?;
        let exit = process.ended().await;
        return if exit.code == 0 { Ok(()) } else { Err(format!("exit code {}", exit.code)) };
    }
    if let Some(pause) = &hook.sleep {
        sleep(Duration::from_secs(u64::try_from(pause.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    let as_probe = k8s_openapi::api::core::v1::Probe {
        http_get: hook.http_get.clone(),
        tcp_socket: hook.tcp_socket.clone(),
        ..Default::default()
    };
    let (check, _) = probe::parse("lifecycle", &as_probe, container, ctx.net.ip()).map_err(|e| e.to_string())?;
    probe::ask(&check, ctx.agent.net.netns(), DEFAULT_GRACE).await
}

/// Whether the container is to stop. Whoever tells it lives as long as the pod does here, so without one it is to stop too.
fn is_stopped(stop: &Stop) -> bool {
    stop.borrow().is_some() || stop.has_changed().is_err()
}

/// Resolves once [`is_stopped`].
async fn stopped(stop: &mut Stop) {
    stop.wait_for(Option::is_some).await.ok();
}
