//! The supervised shell around a state machine: mailbox, crash and restart.
//!
//! A panic while a record is applied stops the actor; its supervisor restarts it, its state is rebuilt from the log up to where it
//! was, and it goes on with the batch that it was at. Messages wait meanwhile; nobody else notices. If the same record makes it
//! panic again, this state machine leaves the record out, here and in every later rebuild, so one bad record does not stop
//! the mesh.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, Supervised, WrapFuture};
use fsm_store::{EventLog, Seq};
use tokio::sync::watch;

use crate::core::{Core, Skips};
use crate::publish::Counters;

/// How long to wait before reading a log again that could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// A state machine that works through jobs, each of which covers some records.
pub trait Machine: Sized + Unpin + Send + 'static {
    /// Its name in logs, metrics and state digests.
    const NAME: &'static str;
    type Job: Unpin + Send + 'static;
    /// What applying one record gives.
    type Output: Unpin + Send + 'static;

    /// The records of a job, in order; never empty.
    fn seqs(job: &Self::Job) -> Vec<Seq>;

    /// Applies the record at `index` of the job.
    fn apply(&mut self, job: &Self::Job, index: usize) -> Self::Output;

    /// Goes past the record at `index` without applying it.
    fn pass_over(&mut self, job: &Self::Job, index: usize) -> Self::Output;

    /// All records of the job are applied: hands on what came of it.
    fn finish(&mut self, job: Self::Job, outputs: Vec<Self::Output>);

    /// Takes its state from a rebuilt core.
    fn restore(&mut self, core: Core);

    /// The next job, if finishing one may have made another one ready.
    fn next_job(&mut self) -> Option<Self::Job> {
        None
    }
}

/// The actor that runs a [`Machine`].
pub struct Shell<M: Machine> {
    pub(crate) machine: M,
    /// The last record of the last finished job.
    reached: Seq,
    /// The job that a panic interrupted.
    interrupted: Option<M::Job>,
    /// The record of the last panic.
    last_panic: Option<Seq>,
    skips: Skips,
    log: Arc<dyn EventLog>,
    counters: Arc<Counters>,
    ended: Failure,
}

/// Says why the control plane cannot go on; none while it can.
pub type Failure = watch::Sender<Option<String>>;

/// Hands a job to a [`Shell`].
#[derive(Message)]
#[rtype(result = "()")]
pub struct Work<J>(pub J);

impl<M: Machine> Shell<M> {
    /// A shell whose machine has applied all records up to `reached`, but for `skips`. If it ends for good, it says so to `ended`.
    pub fn new(
        machine: M,
        reached: Seq,
        skips: Skips,
        log: Arc<dyn EventLog>,
        counters: Arc<Counters>,
        ended: Failure,
    ) -> Self {
        Self { machine, reached, interrupted: None, last_panic: None, skips, log, counters, ended }
    }

    /// Works through a job and all that follow from it; after a panic the actor stops, to be restarted.
    pub(crate) fn run(&mut self, job: M::Job, ctx: &mut Context<Self>) {
        let mut next = Some(job);
        while let Some(job) = next {
            let seqs = M::seqs(&job);
            let mut outputs = Vec::with_capacity(seqs.len());
            for (index, seq) in seqs.iter().enumerate() {
                if self.skips.contains(&(M::NAME, *seq)) {
                    outputs.push(self.machine.pass_over(&job, index));
                    continue;
                }
                let machine = &mut self.machine;
                #[cfg(test)]
                let log = &self.log;
                // The state may be half-changed after a panic: it is thrown away by the restart.
                let applied = catch_unwind(AssertUnwindSafe(|| {
                    #[cfg(test)]
                    poison::check(log, M::NAME, *seq);
                    machine.apply(&job, index)
                }));
                match applied {
                    Ok(output) => outputs.push(output),
                    Err(panic) => {
                        self.note_panic(*seq, &*panic);
                        self.interrupted = Some(job);
                        ctx.stop();
                        return;
                    }
                }
            }
            self.reached = seqs.last().copied().unwrap_or(self.reached);
            #[cfg(test)]
            poison::check(&self.log, "finish", self.reached);
            self.machine.finish(job, outputs);
            next = self.machine.next_job();
        }
    }

    fn note_panic(&mut self, seq: Seq, panic: &(dyn std::any::Any + Send)) {
        let reason = panic_text(panic);
        if self.last_panic.replace(seq) == Some(seq) {
            tracing::error!(actor = M::NAME, seq = seq.0, reason, "record left out: it makes this actor panic");
            self.skips.insert((M::NAME, seq));
        } else {
            tracing::error!(actor = M::NAME, seq = seq.0, reason, "actor panicked: rebuilding its state from the log");
        }
        self.counters.restarted(M::NAME);
    }
}

/// A panic outside of applying a record is none that a restart would mend: the whole control plane has to start again.
impl<M: Machine> Drop for Shell<M> {
    fn drop(&mut self) {
        self.ended.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(format!("the actor \"{}\" ended", M::NAME));
            }
            first
        });
    }
}

impl<M: Machine> Actor for Shell<M> {
    type Context = Context<Self>;
}

impl<M: Machine> Supervised for Shell<M> {
    fn restarting(&mut self, ctx: &mut Self::Context) {
        let Some(job) = self.interrupted.take() else { return };
        let (log, reached, skips) = (self.log.clone(), self.reached, self.skips.clone());
        let rebuilt = async move {
            loop {
                match crate::core::rebuild(&*log, reached, skips.clone()).await {
                    Ok(core) => return core,
                    Err(error) => {
                        tracing::error!(actor = M::NAME, %error, "the log can't be read to rebuild this actor")
                    }
                }
                actix_rt::time::sleep(RETRY).await;
            }
        };
        // `wait`: no message is handled before the state is back.
        ctx.wait(rebuilt.into_actor(self).map(move |core, shell, ctx| {
            shell.machine.restore(core);
            shell.run(job, ctx);
        }));
    }
}

impl<M: Machine> Handler<Work<M::Job>> for Shell<M> {
    type Result = ();

    fn handle(&mut self, work: Work<M::Job>, ctx: &mut Self::Context) {
        self.run(work.0, ctx);
    }
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without text")
}

/// Makes a chosen actor panic at a chosen record, a chosen number of times.
#[cfg(test)]
pub(crate) mod poison {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use fsm_store::{EventLog, Seq};

    /// Tests run side by side, each with its own log.
    type Place = (usize, &'static str, Seq);

    static ARMED: Mutex<BTreeMap<Place, u32>> = Mutex::new(BTreeMap::new());

    fn place(log: &Arc<dyn EventLog>, actor: &'static str, seq: Seq) -> Place {
        (Arc::as_ptr(log).cast::<()>() as usize, actor, seq)
    }

    /// The next `times` times that `actor` applies record `seq` of this log, it panics.
    pub fn arm(log: &Arc<dyn EventLog>, actor: &'static str, seq: Seq, times: u32) {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner).insert(place(log, actor, seq), times);
    }

    pub fn check(log: &Arc<dyn EventLog>, actor: &'static str, seq: Seq) {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = armed.get_mut(&place(log, actor, seq)).filter(|times| **times > 0) {
            *times -= 1;
            drop(armed);
            panic!("poisoned at {seq}");
        }
    }
}
