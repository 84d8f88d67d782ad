//! The control plane without its actors: a pure function from the log to what every proxy is told.
//!
//! Records are applied one by one, so all states are the same at any batch size. The version of a configuration is the seq at
//! which a batch ended; as a configuration depends on nothing but the records up to its seq, a replay can compute the one of
//! any seq, whatever batches there were.

use std::collections::BTreeMap;

use fsm_proxy_config::{ConfigSet, Digest};
use fsm_store::{Record, Seq};

use crate::catalog::{Catalog, Delta, ObjectName};
use crate::concern::certs::Certs;
use crate::concern::injection::Injection;
use crate::concern::routes::Routes;
use crate::concern::splits::Splits;
use crate::concern::{Change, Concern, Step};
use crate::fact::{Fact, InvalidFact};
use crate::publish::{Followed, ProxyUpdate, Publisher};

/// All state machines of the control plane, at one seq.
#[derive(Clone, Debug, Default)]
pub struct Core {
    pub(crate) catalog: Catalog,
    pub(crate) certs: Certs,
    pub(crate) routes: Routes,
    pub(crate) splits: Splits,
    pub(crate) injection: Injection,
    pub(crate) publisher: Publisher,
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

    /// Applies records that follow the last one, and gives what followed proxies have to be told: one version, named by the
    /// last record. Records that cannot be read change nothing.
    ///
    /// # Panics
    /// If a record is not after the last one.
    pub fn apply(&mut self, records: &[Record]) -> Vec<ProxyUpdate> {
        for record in records {
            self.apply_one(record);
        }
        self.publisher.take_updates(self.catalog.seq())
    }

    /// Applies one record, and says what it did; updates of followed proxies wait for [`Core::apply`].
    pub fn apply_one(&mut self, record: &Record) -> Effect {
        let fact = read(record);
        let delta = self.catalog.apply(record.seq, &fact);
        let step = Step { seq: record.seq, fact: &fact, catalog: &self.catalog, delta: &delta };
        // The order of the concerns is part of what a replay repeats.
        let mut changes = self.certs.apply(&step);
        changes.extend(self.routes.apply(&step));
        changes.extend(self.splits.apply(&step));
        changes.extend(self.injection.apply(&step));
        self.publisher.apply(record.seq, &self.catalog, &delta, changes.clone(), record.entry.trace);
        Effect { delta, changes }
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

    /// All proxies, in the order of their names.
    pub fn proxies(&self) -> impl Iterator<Item = &ObjectName> {
        self.publisher.all_proxies().map(|(proxy, _)| proxy)
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

/// The fact of a record. One that cannot be read changes nothing, in every process alike.
pub(crate) fn read(record: &Record) -> Fact {
    Fact::parse(&record.entry).unwrap_or_else(|error: InvalidFact| {
        tracing::error!(seq = record.seq.0, %error, "record ignored");
        Fact::Unknown { topic: record.entry.topic.clone() }
    })
}

#[cfg(test)]
mod tests;
