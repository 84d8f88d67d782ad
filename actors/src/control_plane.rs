//! The running control plane: the state machines as supervised actors over one log.
//!
//! ```text
//! log.tail ─▶ Catalog ─▶ Certs, Routes, Splits, Injection ─▶ Publisher ─▶ Session (one per proxy)
//! ```
//!
//! The actors run on threads of their own; the handle may be used from any tokio runtime.

use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Supervisor};
use actix_rt::{Arbiter, ArbiterHandle, System};
use fsm_proxy_config::ConfigSet;
use fsm_store::{EventLog, Seq};
use futures::StreamExt;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::FactSink;
use crate::catalog::{Batch, Catalog, CatalogActor, CatalogMachine, ObjectName};
use crate::concern::injection::Injection;
use crate::concern::{Concern, ConcernActor, ConcernMachine, FromCore};
use crate::core::{CONCERNS, Core, RebuildError, Skips, rebuild};
use crate::fact::Names;
use crate::publish::{ConfigOf, Counters, PublisherActor, PublisherMachine, StreamService};
use crate::shell::{Failure, Shell, Work};

/// How many batches may be under way between the log and the publisher.
const BATCHES_UNDER_WAY: usize = 16;

/// What can be chosen about a control plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// State digests are recorded each time this many records have passed.
    pub digest_every: u64,
    /// How long a proxy that connects may wait for its pod to become known.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { digest_every: 256, patience: Duration::from_secs(10) }
    }
}

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the state can't be rebuilt from the log: {0}")]
    Log(#[from] RebuildError),
    #[error("no thread for the actors: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the actors ended before they began: see the log output")]
    Ended,
}

/// A running control plane. It follows the log until [`ControlPlane::stop`].
pub struct ControlPlane {
    facts: FactSink,
    publisher: Addr<PublisherActor>,
    published: watch::Receiver<Catalog>,
    injection: watch::Receiver<Injection>,
    failure: watch::Receiver<Option<String>>,
    stream: StreamService,
    counters: Arc<Counters>,
    system: System,
}

impl ControlPlane {
    /// Rebuilds all states from the log, then follows it.
    ///
    /// It appends acknowledgements, connections and state digests itself; all else comes from whoever holds
    /// [`ControlPlane::facts`], first of all [`Fact::ControllerStarted`](crate::Fact::ControllerStarted): before the first
    /// one the mesh has no name and no members.
    pub async fn start(log: Arc<dyn EventLog>, options: Options) -> Result<Self, StartError> {
        let core = rebuild(&*log, log.last(), Skips::new()).await?;
        let (tell, told) = oneshot::channel();
        std::thread::Builder::new().name("fsm-actors".to_owned()).spawn(move || {
            let system = System::new();
            let started = system.block_on(async { start_actors(core, log, options) });
            if tell.send(started).is_ok()
                && let Err(error) = system.run()
            {
                tracing::error!(%error, "the actors ended");
            }
        })?;
        told.await.map_err(|_| StartError::Ended)
    }

    /// Where facts go in.
    pub fn facts(&self) -> FactSink {
        self.facts.clone()
    }

    /// The service that proxies stream from. Requests need a [`PeerIdentity`](crate::publish::PeerIdentity) extension.
    pub fn stream_service(&self) -> StreamService {
        self.stream.clone()
    }

    /// The read model as of the last published version; cheap.
    pub fn catalog(&self) -> Catalog {
        self.published.borrow().clone()
    }

    /// The last published version.
    pub fn seq(&self) -> Seq {
        self.published.borrow().seq()
    }

    /// Waits until the version `seq` or a later one is published; gives the read model as of it.
    pub async fn reached(&self, seq: Seq) -> Catalog {
        let mut published = self.published.clone();
        match published.wait_for(|catalog| catalog.seq() >= seq).await {
            Ok(catalog) => catalog.clone(),
            // The actors are gone, and with them anything to wait for.
            Err(_) => std::future::pending().await,
        }
    }

    /// What the injection webhook has to know, always the newest; a change is seen when it really is one.
    pub fn injection(&self) -> watch::Receiver<Injection> {
        self.injection.clone()
    }

    /// All that a proxy (`<namespace>/<pod>`) is told now; none if there is no such proxy.
    pub async fn config_of(&self, proxy: &ObjectName) -> Option<ConfigSet> {
        self.publisher.send(ConfigOf(proxy.clone())).await.ok().flatten()
    }

    /// What the actors counted.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Waits until the control plane can no longer follow its log, or an actor has ended for good; gives the reason. Then it has to be
    /// started again.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the actors ended".to_owned(),
        }
    }

    /// Ends all actors and streams.
    pub fn stop(self) {
        self.system.stop();
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.system.stop();
    }
}

/// Runs on the actors' main thread, within its system.
fn start_actors(core: Core, log: Arc<dyn EventLog>, options: Options) -> ControlPlane {
    let facts = FactSink::new(log.clone());
    let counters = Arc::new(Counters::default());
    let (publish, published) = watch::channel(core.catalog.clone());
    let (see_injection, injection) = watch::channel(core.injection.clone());
    let (fail, failure) = watch::channel(None);
    let reached = core.seq();
    let skips = core.skips().clone();
    let launch = Launch { log: log.clone(), reached, skips, counters: counters.clone(), ended: fail.clone() };

    let machine = PublisherMachine::new(core.clone(), facts.clone(), publish, counters.clone());
    let publisher = launch.start(machine);
    let see_injection = move |state: &Injection| {
        see_injection.send_if_modified(|seen| {
            let newer = !seen.is_same_version(state);
            if newer {
                seen.clone_from(state);
            }
            newer
        });
    };
    let concerns = vec![
        launch.concern(core.certs, &publisher, |_| {}).recipient(),
        launch.concern(core.routes, &publisher, |_| {}).recipient(),
        launch.concern(core.splits, &publisher, |_| {}).recipient(),
        launch.concern(core.injection, &publisher, see_injection).recipient(),
    ];
    let catalog = launch.start(CatalogMachine {
        catalog: core.catalog,
        concerns,
        publisher: publisher.clone(),
        digest_every: options.digest_every.max(1),
        names: Names::default(),
    });
    actix_rt::spawn(async move {
        let reason = follow(&*log, reached, catalog).await;
        tracing::error!(reason, "the log is no longer followed");
        fail.send_replace(Some(reason));
    });
    let stream = StreamService::new(
        publisher.clone(),
        Arbiter::new().handle(),
        facts.clone(),
        published.clone(),
        options.patience,
    );
    let system = System::current();
    ControlPlane { facts, publisher, published, injection, failure, stream, counters, system }
}

/// Hands every batch of the log to the catalog; gives the reason when it ends.
async fn follow(log: &dyn EventLog, reached: Seq, catalog: Addr<CatalogActor>) -> String {
    let under_way = Arc::new(Semaphore::new(BATCHES_UNDER_WAY));
    let mut batches = log.tail(reached.next());
    while let Some(batch) = batches.next().await {
        let records = match batch {
            Ok(records) => records,
            Err(error) => return error.to_string(),
        };
        let Ok(permit) = under_way.clone().acquire_owned().await else { break };
        catalog.do_send(Work(Batch { records, permit }));
    }
    "the log was closed".to_owned()
}

/// Starts supervised actors, each on a thread of its own.
struct Launch {
    log: Arc<dyn EventLog>,
    reached: Seq,
    skips: Skips,
    counters: Arc<Counters>,
    ended: Failure,
}

impl Launch {
    fn start<M: crate::shell::Machine>(&self, machine: M) -> Addr<Shell<M>> {
        let shell = Shell::new(
            machine,
            self.reached,
            self.skips.clone(),
            self.log.clone(),
            self.counters.clone(),
            self.ended.clone(),
        );
        let thread: ArbiterHandle = Arbiter::new().handle();
        Supervisor::start_in_arbiter(&thread, move |_| shell)
    }

    fn concern<C: Concern + FromCore>(
        &self,
        state: C,
        publisher: &Addr<PublisherActor>,
        observe: impl Fn(&C) + Send + 'static,
    ) -> Addr<ConcernActor<C>> {
        let place = CONCERNS.iter().position(|name| *name == C::NAME).expect("every concern is listed");
        self.start(ConcernMachine { state, place, publisher: publisher.clone(), observe: Box::new(observe) })
    }
}

#[cfg(test)]
mod tests;
