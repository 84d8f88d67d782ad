//! The catalog as an actor: it takes batches from the log, and gives every concern the same versions.

use std::sync::Arc;

use actix::{Addr, Recipient};
use fsm_proxy_config::Digest;
use fsm_store::{Record, RecordBatch, Seq, TraceContext};
use tokio::sync::OwnedSemaphorePermit;

use super::{Catalog, Delta};
use crate::core::{CATALOG, Core};
use crate::fact::{Fact, Names};
use crate::publish::PublisherActor;
use crate::shell::{Machine, Shell, Work};

/// The actor.
pub type CatalogActor = Shell<CatalogMachine>;

/// A batch from the log.
pub struct Batch {
    pub records: RecordBatch,
    /// Given back when the batch is published: bounds how many are under way.
    pub permit: OwnedSemaphorePermit,
}

/// A batch as all others get it.
pub struct Applied {
    /// One for each record.
    pub steps: Vec<AppliedStep>,
    /// The digest of the catalog after the last record, if state digests are due; then everybody adds theirs.
    pub digest: Option<Digest>,
    _permit: OwnedSemaphorePermit,
}

impl Applied {
    /// The last record of the batch.
    pub fn last(&self) -> Seq {
        self.steps.last().map_or(Seq::ZERO, |step| step.seq)
    }
}

/// One record, with the catalog as of it.
pub struct AppliedStep {
    pub seq: Seq,
    pub fact: Fact,
    pub catalog: Catalog,
    pub delta: Delta,
    pub trace: TraceContext,
}

/// The catalog, and whom it tells.
pub struct CatalogMachine {
    pub catalog: Catalog,
    pub concerns: Vec<Recipient<Work<Arc<Applied>>>>,
    pub publisher: Addr<PublisherActor>,
    /// State digests are due each time this many records have passed.
    pub digest_every: u64,
    /// Names in the records so far.
    pub names: Names,
}

impl CatalogMachine {
    fn step(&mut self, record: &Record, fact: Fact) -> AppliedStep {
        let delta = self.catalog.apply(record.seq, &fact);
        AppliedStep { seq: record.seq, fact, catalog: self.catalog.clone(), delta, trace: record.entry.trace }
    }

    /// Every so many records, and when a controller begins and ends, so that a short run proves something too.
    fn digest_is_due(&self, steps: &[AppliedStep]) -> bool {
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return false };
        let turn =
            steps.iter().any(|step| matches!(step.fact, Fact::ControllerStarted(_) | Fact::ControllerStopped(_)));
        // Records of digests alone must not lead to more of them.
        turn || steps.iter().any(|step| !matches!(step.fact, Fact::StateDigest(_)))
            && (first.seq.0 - 1) / self.digest_every != last.seq.0 / self.digest_every
    }
}

impl Machine for CatalogMachine {
    const NAME: &'static str = CATALOG;
    type Job = Batch;
    type Output = AppliedStep;

    fn seqs(batch: &Batch) -> Vec<Seq> {
        batch.records.iter().map(|record| record.seq).collect()
    }

    fn apply(&mut self, batch: &Batch, index: usize) -> AppliedStep {
        let record = &batch.records[index];
        crate::span::append(record);
        let _span = crate::span::child(Self::NAME, &record.entry.trace, record.seq);
        let fact = crate::core::read(record, &mut self.names);
        self.step(record, fact)
    }

    fn pass_over(&mut self, batch: &Batch, index: usize) -> AppliedStep {
        let record = &batch.records[index];
        self.step(record, crate::core::left_out(record))
    }

    fn finish(&mut self, batch: Batch, steps: Vec<AppliedStep>) {
        let digest = self.digest_is_due(&steps).then(|| {
            self.catalog.settle_digest();
            self.catalog.digest()
        });
        let applied = Arc::new(Applied { steps, digest, _permit: batch.permit });
        for concern in &self.concerns {
            concern.do_send(Work(applied.clone()));
        }
        self.publisher.do_send(crate::publish::Part::Batch(applied));
    }

    fn restore(&mut self, core: Core) {
        self.catalog = core.catalog;
    }
}
