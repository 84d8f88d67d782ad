//! A concern as an actor.

use std::sync::Arc;

use actix::Addr;
use fsm_proxy_config::Digest;
use fsm_store::Seq;

use super::{Change, Concern, Step};
use crate::catalog::{Applied, AppliedStep};
use crate::core::Core;
use crate::publish::{Part, PublisherActor};
use crate::shell::{Machine, Shell};

/// The actor that runs a concern.
pub type ConcernActor<C> = Shell<ConcernMachine<C>>;

/// What a concern made of a batch.
pub struct ConcernDone {
    /// Which concern: its place in the order of the concerns.
    pub concern: usize,
    /// The last record of the batch.
    pub last: Seq,
    /// For each record.
    pub changes: Vec<Vec<Change>>,
    /// If state digests are due.
    pub digest: Option<Digest>,
}

/// A concern, and whom it tells.
pub struct ConcernMachine<C> {
    pub state: C,
    /// Its place in the order of the concerns.
    pub place: usize,
    pub publisher: Addr<PublisherActor>,
    /// Sees the state after each batch.
    pub observe: Box<dyn Fn(&C) + Send>,
}

/// A concern's part of a rebuilt core.
pub trait FromCore {
    /// Takes it out.
    fn from_core(core: Core) -> Self;
}

impl<C: Concern + FromCore> Machine for ConcernMachine<C> {
    const NAME: &'static str = C::NAME;
    type Job = Arc<Applied>;
    type Output = Vec<Change>;

    fn seqs(batch: &Arc<Applied>) -> Vec<Seq> {
        batch.steps.iter().map(|step| step.seq).collect()
    }

    fn apply(&mut self, batch: &Arc<Applied>, index: usize) -> Vec<Change> {
        let AppliedStep { seq, fact, catalog, delta, trace } = &batch.steps[index];
        let _span = crate::span::child(C::NAME, trace, *seq);
        self.state.apply(&Step { seq: *seq, fact, catalog, delta })
    }

    fn pass_over(&mut self, _: &Arc<Applied>, _: usize) -> Vec<Change> {
        Vec::new()
    }

    fn finish(&mut self, batch: Arc<Applied>, changes: Vec<Vec<Change>>) {
        (self.observe)(&self.state);
        let digest = batch.digest.map(|_| {
            self.state.settle_digest();
            self.state.digest()
        });
        let done = ConcernDone { concern: self.place, last: batch.last(), changes, digest };
        self.publisher.do_send(Part::Concern(done));
    }

    fn restore(&mut self, core: Core) {
        self.state = C::from_core(core);
    }
}
