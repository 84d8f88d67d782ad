//! Asking a container's probes over and over, and reporting what changes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::launch::Streams;
use super::probe::{self, Check, Streak, Timing};

/// What probes find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The startup probe succeeded.
    Started,
    Ready(bool),
    /// The container must be started again.
    Hopeless(String),
}

#[derive(Clone)]
struct Prober {
    ctx: Arc<Context>,
    container: Arc<Container>,
    report: UnboundedSender<Finding>,
}

/// Starts the container's probes. Liveness and readiness wait until the startup probe has succeeded.
pub(super) fn start(
    ctx: &Arc<Context>,
    container: &Arc<Container>,
    report: &UnboundedSender<Finding>,
    tasks: &mut JoinSet<()>,
) {
    let prober = Prober { ctx: Arc::clone(ctx), container: Arc::clone(container), report: report.clone() };
    tasks.spawn(async move {
        if let Some(startup) = &prober.container.startup_probe
            && !prober.startup(startup).await
        {
            return;
        }
        let liveness = async {
            if let Some(probe) = &prober.container.liveness_probe {
                prober.liveness(probe).await;
            }
        };
        let readiness = async {
            if let Some(probe) = &prober.container.readiness_probe {
                prober.readiness(probe).await;
            }
        };
        futures::future::join(liveness, readiness).await;
    });
}

impl Prober {
    async fn startup(&self, probe: &Probe) -> bool {
        let Some((check, timing)) = self.parse("startup", probe) else { return false };
        let timing = timing.eager();
        let mut streak = Streak::default();
        sleep(timing.initial_delay).await;
        loop {
            let answer = self.ask(&check, &timing).await;
            match (streak.take(answer.is_ok(), &timing), answer) {
                (Some(true), _) => {
                    self.report.send(Finding::Started).ok();
                    return true;
                }
                (Some(false), Err(why)) => {
                    self.warn("Startup", &why);
                    self.report.send(Finding::Hopeless(format!("startup probe failed: {why}"))).ok();
                    return false;
                }
                _ => sleep(timing.period).await,
            }
        }
    }

    async fn liveness(&self, probe: &Probe) {
        let Some((check, timing)) = self.parse("liveness", probe) else { return };
        let mut streak = Streak::default();
        sleep(timing.initial_delay).await;
        loop {
            if let Err(why) = self.ask(&check, &timing).await {
                self.warn("Liveness", &why);
                if streak.take(false, &timing).is_some() {
                    self.report.send(Finding::Hopeless(format!("liveness probe failed: {why}"))).ok();
                    return;
                }
            } else {
                streak.take(true, &timing);
            }
            sleep(timing.period).await;
        }
    }

    async fn readiness(&self, probe: &Probe) {
        let Some((check, timing)) = self.parse("readiness", probe) else { return };
        let mut streak = Streak::default();
        let mut ready = false;
        let mut complaint = None;
        sleep(timing.initial_delay).await;
        loop {
            let answer = self.ask(&check, &timing).await;
            if let Some(verdict) = streak.take(answer.is_ok(), &timing)
                && verdict != ready
            {
                ready = verdict;
                self.report.send(Finding::Ready(ready)).ok();
            }
            // Said once for as long as it stays the same: an event twice a second would tell nobody more.
            let why = answer.err();
            if why != complaint
                && let Some(why) = &why
            {
                self.warn("Readiness", why);
            }
            complaint = why;
            sleep(if ready { timing.period } else { timing.eager().period }).await;
        }
    }

    fn parse(&self, kind: &'static str, probe: &Probe) -> Option<(Check, Timing)> {
        match probe::parse(kind, probe, &self.container, self.ctx.net.ip()) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.ctx.agent.events.warn(self.ctx.pod.as_ref(), "InvalidProbe", &error.to_string());
                None
            }
        }
    }

    async fn ask(&self, check: &Check, timing: &Timing) -> Result<(), String> {
        let Check::Exec(argv) = check else {
            return probe::ask(check, self.ctx.agent.net.netns(), timing.timeout).await;
        };
        let mut process = self.ctx.exec(&self.container.name, argv.clone(), Streams::None).await?;
        match timeout(timing.timeout, process.ended()).await {
            Ok(exit) if exit.code == 0 => Ok(()),
            Ok(exit) => Err(format!("command {argv:?} exited with {}", exit.code)),
            Err(_) => {
                process.kill_group();
                Err(format!("command {argv:?} timed out"))
            }
        }
    }

    fn warn(&self, kind: &str, why: &str) {
        self.ctx.agent.events.warn(self.ctx.pod.as_ref(), "Unhealthy", &format!("{kind} probe failed: {why}"));
    }
}
