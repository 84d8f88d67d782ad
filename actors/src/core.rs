//! The control plane without its actors: a pure function from the log to what every proxy is told.
//!
//! Records are applied one by one, so all states are the same at any batch size. The version of a configuration is the seq at
//! which a batch ended; as a configuration depends on nothing but the records up to its seq, a replay can compute the one of
//! any seq, whatever batches there were.

mod rebuild;
pub mod snapshot;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fsm_proxy_config::{ConfigSet, Digest};
use fsm_store::{Record, Seq};

use crate::catalog::view::Account;
use crate::catalog::{Catalog, Delta, ObjectName};
use crate::concern::certs::Certs;
use crate::concern::injection::Injection;
use crate::concern::routes::Routes;
use crate::concern::splits::Splits;
use crate::concern::{Change, Concern, ResourceKey, Step, Told};
use crate::fact::{Fact, InvalidFact, Names};
use crate::publish::{Followed, ProxyUpdate, Publisher};

pub use rebuild::{RebuildError, SNAPSHOT, beginning, rebuild};

/// All state machines of the control plane, at one seq.
#[derive(Clone, Debug, Default)]
pub struct Core {
    pub(crate) catalog: Catalog,
    pub(crate) certs: Certs,
    pub(crate) routes: Routes,
    pub(crate) splits: Splits,
    pub(crate) injection: Injection,
    pub(crate) publisher: Publisher,
    /// Records that single state machines leave out.
    pub(crate) skips: Skips,
    /// Names in the records so far.
    names: Names,
    /// The state machine and record at work, to know after a panic whose it was.
    at_work: Option<(&'static str, Seq)>,
}

/// Records that a state machine leaves out because they make it panic: its name and the seq.
pub type Skips = BTreeSet<(&'static str, Seq)>;

/// A state machine panicked at a record. Whoever begins again and leaves that record out for it gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked {
    pub machine: &'static str,
    pub seq: Seq,
}

/// What one record did.
#[derive(Clone, Debug, Default)]
pub struct Effect {
    /// What it changed in the read model.
    pub delta: Delta,
    /// The resources that it changed.
    pub changes: Vec<Change>,
}

impl Core {
    /// The state before the first record; [`Core::apply`] gives the updates of the proxies in `followed`.
    pub fn new(followed: Followed) -> Self {
        let mut core = Self::default();
        core.publisher.follow(followed);
        core
    }

    /// The state before the first record, of state machines that leave out some records.
    pub fn leaving_out(skips: Skips) -> Self {
        Self { skips, ..Self::default() }
    }

    /// Leaves out these records too, which come after the last one.
    pub fn leave_out(&mut self, skips: &Skips) {
        self.skips.extend(skips);
    }

    /// Applies records that follow the last one, and gives what followed proxies have to be told: one version, named by the
    /// last record. Records that cannot be read change nothing.
    ///
    /// # Panics
    /// If a record is not after the last one.
    pub fn apply(&mut self, records: &[Record]) -> Vec<ProxyUpdate> {
        for record in records {
            self.apply_one(record);
        }
        self.take_updates()
    }

    /// Applies one record, and says what it did; updates of followed proxies wait for [`Core::apply`].
    pub fn apply_one(&mut self, record: &Record) -> Effect {
        let seq = record.seq;
        let fact = if self.begin(CATALOG, seq) { read(record, &mut self.names) } else { left_out(record) };
        let delta = self.catalog.apply(seq, &fact);
        let mut changes = Vec::new();
        // The order of the concerns is part of what a replay repeats.
        if self.begin(Certs::NAME, seq) {
            changes = self.certs.apply(&Step { seq, fact: &fact, catalog: &self.catalog, delta: &delta });
        }
        if self.begin(Routes::NAME, seq) {
            let more = self.routes.apply(&Step { seq, fact: &fact, catalog: &self.catalog, delta: &delta });
            if changes.is_empty() { changes = more } else { changes.extend(more) }
        }
        if self.begin(Splits::NAME, seq) {
            changes.extend(self.splits.apply(&Step { seq, fact: &fact, catalog: &self.catalog, delta: &delta }));
        }
        if self.begin(Injection::NAME, seq) {
            changes.extend(self.injection.apply(&Step { seq, fact: &fact, catalog: &self.catalog, delta: &delta }));
        }
        if self.begin(PUBLISHER, seq) {
            self.publisher.apply(seq, &self.catalog, &delta, &changes, record.entry.trace);
        }
        self.at_work = None;
        Effect { delta, changes }
    }

    /// As [`Core::apply_one`], but a state machine's panic is an error that says whose it was. The state is of no use then:
    /// begin again with [`Core::leaving_out`].
    pub fn try_apply_one(&mut self, record: &Record) -> Result<Effect, Panicked> {
        catch_unwind(AssertUnwindSafe(|| self.apply_one(record))).map_err(|panic| match self.at_work {
            Some((machine, seq)) if !self.skips.contains(&(machine, seq)) => Panicked { machine, seq },
            // None of theirs.
            _ => resume_unwind(panic),
        })
    }

    /// Notes who is at work on what; false if this record is to be left out.
    fn begin(&mut self, machine: &'static str, seq: Seq) -> bool {
        self.at_work = Some((machine, seq));
        !self.skips.contains(&(machine, seq))
    }

    /// The last record that was applied.
    pub fn seq(&self) -> Seq {
        self.catalog.seq()
    }

    /// The read model.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What the injection webhook has to know.
    pub fn injection(&self) -> &Injection {
        &self.injection
    }

    /// The certificates in use.
    pub fn certs(&self) -> &Certs {
        &self.certs
    }

    /// All that a proxy (`<namespace>/<pod>`) is told; none if there is no such proxy.
    pub fn config_of(&self, proxy: &ObjectName) -> Option<ConfigSet> {
        self.publisher.config_of(proxy, self.catalog.seq())
    }

    /// Says whose updates [`Core::apply`] and [`Core::take_updates`] give from now on.
    pub fn follow(&mut self, followed: Followed) {
        self.publisher.follow(followed);
    }

    /// Followed proxies that left the mesh since the last call, or are somebody else now: their streams have to begin anew.
    pub fn take_left(&mut self) -> BTreeSet<ObjectName> {
        self.publisher.take_left()
    }

    /// The service account of a proxy; none if there is no such proxy.
    pub fn account_of(&self, proxy: &ObjectName) -> Option<&Account> {
        self.publisher.account_of(proxy)
    }

    /// All proxies, in the order of their names.
    pub fn proxies(&self) -> impl Iterator<Item = &ObjectName> {
        self.publisher.all_proxies().map(|(proxy, _)| proxy)
    }

    /// A resource, whoever is told about it.
    pub fn resource(&self, key: &ResourceKey) -> Option<&Told> {
        self.publisher.resource_told(key)
    }

    /// What followed proxies have to be told since the last call, as one version.
    pub fn take_updates(&mut self) -> Vec<ProxyUpdate> {
        self.publisher.take_updates(self.catalog.seq())
    }

    /// Records that single state machines leave out because they panic at them.
    pub fn skips(&self) -> &Skips {
        &self.skips
    }

    /// Hashes what changed since the last call, so that [`Core::digests`] costs nothing before the next change.
    pub fn settle_digests(&mut self) {
        self.catalog.settle_digest();
        self.certs.settle_digest();
        self.routes.settle_digest();
        self.splits.settle_digest();
        self.publisher.settle_digest();
    }

    /// A digest of every state machine, by its name.
    pub fn digests(&self) -> BTreeMap<String, Digest> {
        [
            (CATALOG, self.catalog.digest()),
            (Certs::NAME, self.certs.digest()),
            (Routes::NAME, self.routes.digest()),
            (Splits::NAME, self.splits.digest()),
            (Injection::NAME, self.injection.digest()),
            (PUBLISHER, self.publisher.digest()),
        ]
        .map(|(name, digest)| (name.to_owned(), digest))
        .into()
    }
}

/// The name of the catalog in state digests, logs and metrics.
pub(crate) const CATALOG: &str = "catalog";
/// The name of the publisher in state digests, logs and metrics.
pub(crate) const PUBLISHER: &str = "publisher";

/// The names of the concerns, in the order in which they are applied.
pub(crate) const CONCERNS: [&str; 4] = [Certs::NAME, Routes::NAME, Splits::NAME, Injection::NAME];

/// The fact of a record. One that cannot be read changes nothing, in every process alike.
pub(crate) fn read(record: &Record, names: &mut Names) -> Fact {
    Fact::parse_knowing(&record.entry, names).unwrap_or_else(|error: InvalidFact| {
        tracing::error!(seq = record.seq.0, %error, "record ignored");
        left_out(record)
    })
}

/// What stands for a record that the catalog leaves out.
pub(crate) fn left_out(record: &Record) -> Fact {
    Fact::Unknown { topic: record.entry.topic.to_string() }
}

#[cfg(test)]
mod tests;
