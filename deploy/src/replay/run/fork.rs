//! Two histories side by side: what was, and what would have been.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;
use fsm_actors::core::Effect;
use fsm_actors::publish::{Followed, ProxyUpdate};
use fsm_proxy_config::{ConfigSet, Digest};
use fsm_store::{Record, Seq, Timestamp, TraceContext};

use super::manifests::Manifest;
use super::probes::{self, Brief, Probe};
use crate::replay::cause::{Cause, Trail};
use crate::replay::past::Seen;
use crate::replay::request::Question;

/// How many moments decisions are compared at: each means working out many answers, twice.
const MOMENTS: u32 = 400;

/// What makes the other history another one.
pub(super) struct Hypothesis {
    pub(super) without: BTreeSet<Seq>,
    pub(super) with: Vec<Manifest>,
    /// The record after which the manifests are applied.
    pub(super) with_after: Seq,
    /// The only request to compare; none means many.
    pub(super) question: Option<Question>,
}

/// A stretch of records in which something differed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Span<T> {
    /// The first record after which it differed, and the last one.
    pub(super) from: Seq,
    /// None: it still does.
    pub(super) to: Option<Seq>,
    pub(super) how: T,
}

/// The other history, and in what it differed on the way.
pub(super) struct Fork<'a> {
    pub(super) hypothesis: &'a Hypothesis,
    pub(super) core: Core,
    /// How many records it has more than the real one, with the manifests.
    shift: u64,
    applied: bool,
    trail: Trail,
    pub(super) left_out: Vec<Cause>,
    pub(super) configs: BTreeMap<ObjectName, Vec<Span<()>>>,
    pub(super) decisions: BTreeMap<Probe, Vec<Span<[Option<Brief>; 2]>>>,
    moments: u32,
    /// Decisions were not compared at every moment.
    pub(super) incomplete: bool,
    pub(super) failed: Option<anyhow::Error>,
}

impl<'a> Fork<'a> {
    /// Both histories are the same up to here.
    pub(super) fn new(hypothesis: &'a Hypothesis, real: &mut Core) -> Self {
        real.follow(Followed::Everybody);
        let mut fork = Self {
            hypothesis,
            core: real.clone(),
            shift: 0,
            applied: false,
            trail: Trail::new(real),
            left_out: Vec::new(),
            configs: BTreeMap::new(),
            decisions: BTreeMap::new(),
            moments: 0,
            incomplete: false,
            failed: None,
        };
        if real.seq() >= hypothesis.with_after {
            fork.apply_manifests(real);
        }
        fork
    }

    /// The next record, which the real history has applied already.
    pub(super) fn see(&mut self, real: &mut Core, Seen { record, effect }: Seen<'_>) {
        let steps = self.trail.step(real, record);
        let mut deltas = membership_may_differ(effect);
        if self.hypothesis.without.contains(&record.seq) {
            self.left_out.push(Cause::new(record, &steps));
        } else if let Err(error) = self.apply(record).map(|effect| deltas |= membership_may_differ(&effect)) {
            self.failed.get_or_insert(error);
            return;
        }
        if !self.applied && record.seq >= self.hypothesis.with_after {
            self.apply_manifests(real);
        } else {
            self.compare(real, record.seq, deltas);
        }
    }

    /// The end of the real history: what is applied after it has its turn.
    pub(super) fn finish(&mut self, real: &mut Core) -> anyhow::Result<()> {
        if !self.applied {
            self.apply_manifests(real);
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn apply(&mut self, record: &Record) -> anyhow::Result<Effect> {
        // What was applied beside the real history is not named in its lists: it is there all the same.
        if self.applied && record.entry.topic == "relist" && record.entry.body.windows(5).any(|word| word == b"\"end\"")
        {
            let listed = self.hypothesis.with.iter().filter(|manifest| manifest.info.gvk() == &*record.entry.key);
            for manifest in listed {
                self.apply_manifest(manifest)?;
            }
        }
        if self.shift == 0 {
            return self.apply_as(record);
        }
        self.apply_as(&Record { seq: Seq(record.seq.0 + self.shift), ..record.clone() })
    }

    fn apply_as(&mut self, record: &Record) -> anyhow::Result<Effect> {
        match self.core.try_apply_one(record) {
            Ok(effect) => Ok(effect),
            Err(panicked) => bail!(
                "the hypothetical history makes the state machine {} panic at record {}: what would follow can't be told",
                panicked.machine,
                panicked.seq
            ),
        }
    }

    fn apply_manifest(&mut self, manifest: &Manifest) -> anyhow::Result<()> {
        self.shift += 1;
        let entry = manifest.fact(&self.core).to_entry(TraceContext::default());
        let record = Record { seq: self.core.seq().next(), time: Timestamp(0), entry };
        self.apply_as(&record).map(drop).with_context(|| format!("with {}", manifest.file.display()))
    }

    fn apply_manifests(&mut self, real: &mut Core) {
        self.applied = true;
        for manifest in &self.hypothesis.with {
            if let Err(error) = self.apply_manifest(manifest) {
                self.failed.get_or_insert(error);
                return;
            }
        }
        self.compare(real, real.seq(), true);
    }

    fn compare(&mut self, real: &mut Core, seq: Seq, deltas: bool) {
        let (ours, theirs) = (by_proxy(real.take_updates()), by_proxy(self.core.take_updates()));
        let mut touched: BTreeSet<&ObjectName> = ours.keys().chain(theirs.keys()).collect();
        // The same news for a proxy that has the same configuration leaves it the same.
        touched.retain(|proxy| {
            self.differs(proxy)
                || !same_news(ours.get(*proxy).map(|one| &one.update), theirs.get(*proxy).map(|one| &one.update))
        });
        let mut proxies: BTreeSet<ObjectName> = touched.into_iter().cloned().collect();
        if deltas {
            let (one, other): (BTreeSet<_>, BTreeSet<_>) = (real.proxies().collect(), self.core.proxies().collect());
            proxies.extend(one.symmetric_difference(&other).map(|proxy| (*proxy).clone()));
            proxies.extend(self.configs.keys().cloned());
        }
        if proxies.is_empty() {
            return;
        }
        for proxy in proxies {
            let differs = digest(real, &proxy) != digest(&self.core, &proxy);
            set(self.configs.entry(proxy.clone()).or_default(), seq, differs.then_some(()));
            self.configs.retain(|_, spans| !spans.is_empty());
        }
        self.compare_decisions(real, seq);
    }

    fn differs(&self, proxy: &ObjectName) -> bool {
        self.configs.get(proxy).and_then(|spans| spans.last()).is_some_and(|span| span.to.is_none())
    }

    fn compare_decisions(&mut self, real: &Core, seq: Seq) {
        if self.moments == MOMENTS {
            self.incomplete = true;
            return;
        }
        self.moments += 1;
        let mut differing = probes::differing(real, &self.core, self.hypothesis.question.as_ref());
        for (probe, spans) in &mut self.decisions {
            set(spans, seq, differing.remove(probe));
        }
        for (probe, how) in differing {
            set(self.decisions.entry(probe).or_default(), seq, Some(how));
        }
    }
}

/// Notes from `seq` on how something differs, or that it doesn't.
fn set<T: PartialEq>(spans: &mut Vec<Span<T>>, seq: Seq, how: Option<T>) {
    let open = spans.last_mut().filter(|span| span.to.is_none());
    match (open, how) {
        (None, None) => {}
        (None, Some(how)) => spans.push(Span { from: seq, to: None, how }),
        (Some(span), Some(how)) if span.how == how => {}
        (Some(span), how) => {
            span.to = Some(Seq(seq.0.saturating_sub(1)));
            if let Some(how) = how {
                spans.push(Span { from: seq, to: None, how });
            }
        }
    }
}

fn membership_may_differ(effect: &Effect) -> bool {
    let delta = &effect.delta;
    !delta.pods.is_empty() || !delta.namespaces.is_empty() || delta.mesh.is_some()
}

fn by_proxy(updates: Vec<ProxyUpdate>) -> BTreeMap<ObjectName, ProxyUpdate> {
    updates.into_iter().map(|update| (update.proxy.clone(), update)).collect()
}

/// Whether two updates say the same, whatever the versions.
fn same_news(one: Option<&fsm_proxy_config::Update>, other: Option<&fsm_proxy_config::Update>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    one.removed == other.removed
        && one.changed.len() == other.changed.len()
        && one.changed.iter().zip(&other.changed).all(|(one, other)| one.0 == other.0 && one.1.bytes == other.1.bytes)
}

fn digest(core: &Core, proxy: &ObjectName) -> Option<Digest> {
    core.config_of(proxy).as_ref().map(ConfigSet::digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_follow_what_differs() {
        let mut spans: Vec<Span<u8>> = Vec::new();
        for (seq, how) in [(1, None), (3, Some(7)), (4, Some(7)), (5, Some(8)), (9, None), (10, None), (12, Some(7))] {
            set(&mut spans, Seq(seq), how);
        }
        let span = |from, to: Option<u64>, how| Span { from: Seq(from), to: to.map(Seq), how };
        assert_eq!(spans, [span(3, Some(4), 7), span(5, Some(8), 8), span(12, None, 7)]);
    }
}
