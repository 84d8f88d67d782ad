//! The search for the record that changed an answer.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use fsm_actors::Core;
use fsm_actors::catalog::{Delta, ObjectName};
use fsm_actors::core::Skips;
use fsm_actors::publish::Followed;
use fsm_store::Seq;
use serde::Serialize;

use super::Expect;
use crate::log::History;
use crate::replay::cause::{Cause, Trail};
use crate::replay::past::{Past, Seen, beginning, recompute, replay};
use crate::replay::proxies;
use crate::replay::request::{Answer, Decider, Question};

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) question: &'a Question,
    pub(super) expect: &'a Expect,
    /// Every record is looked at, whatever snapshots there are.
    pub(super) every_record: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) request: Question,
    #[serde(serialize_with = "as_text")]
    pub(super) expect: Expect,
    pub(super) from: Seq,
    pub(super) to: Seq,
    /// Whether the answer was as expected at the first moment.
    pub(super) holds_at_from: bool,
    /// None: it never changed.
    pub(super) found: Option<Found>,
    /// Whether it is certain that the answer didn't change before that: snapshots were not jumped to.
    pub(super) first: bool,
    /// Records that were looked at.
    pub(super) records: u64,
    /// How often the answer was worked out.
    pub(super) asked: u64,
}

/// The record that changed the answer.
#[derive(Debug, Serialize)]
pub(super) struct Found {
    pub(super) record: Cause,
    pub(super) before: Option<Answer>,
    pub(super) after: Option<Answer>,
}

fn as_text<S: serde::Serializer>(expect: &Expect, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(expect)
}

/// Where the search has got to.
struct Under {
    from: Seq,
    holds: bool,
    answer: Option<Answer>,
    /// The proxies that the answer depends on.
    involved: BTreeSet<ObjectName>,
    trail: Trail,
    found: Option<Found>,
    asked: u64,
    records: u64,
}

/// What is left of a stretch.
struct Narrowed {
    from: Seq,
    to: Seq,
    /// Where the whole stretch begins.
    whole_from: Seq,
    asked: u64,
}

/// The state of a snapshot between two seqs, near the middle if there are some; it is of neither seq itself.
async fn snapshot_within(history: &History, low: Seq, high: Seq) -> anyhow::Result<Option<Past>> {
    let middle = Seq(low.0 + (high.0 - low.0) / 2);
    for upto in [middle, Seq(high.0.saturating_sub(1))] {
        let past = beginning(history, upto, &Skips::new()).await?;
        if past.core.seq() > low && past.core.seq() < high {
            return Ok(Some(past));
        }
    }
    Ok(None)
}

impl Search<'_> {
    /// Looks for a record after `from`, up to `to`, after which the answer is no more what it was at `from`, as far as the expectation
    /// can tell.
    ///
    /// If the answers at both ends differ, the stretch is halved from snapshot to snapshot, as `git bisect` does it: what is found is
    /// one change, and the answer may have changed and changed back before. The stretch that is left, or all of it if there are no
    /// snapshots or the ends are the same, is gone over record by record.
    pub(super) async fn run(self, history: &History, from: Seq, to: Seq) -> anyhow::Result<Outcome> {
        let narrowed = if self.every_record { None } else { self.narrow(history, from, to).await? };
        let (begin_at, end_at) = narrowed.as_ref().map_or((from, to), |narrowed| (narrowed.from, narrowed.to));
        let begin = |past: &mut Past| self.look(past);
        let see = |under: &mut Under, core: &mut Core, seen: Seen<'_>| self.see(under, core, seen);
        let (past, under) = replay(history, begin_at, end_at, begin, see).await?;
        Ok(Outcome {
            request: self.question.clone(),
            expect: self.expect.clone(),
            from: narrowed.as_ref().map_or(under.from, |narrowed| narrowed.whole_from),
            to: past.core.seq(),
            holds_at_from: under.holds,
            found: under.found,
            first: narrowed.is_none(),
            records: under.records,
            asked: under.asked + narrowed.map_or(0, |narrowed| narrowed.asked),
        })
    }

    /// A stretch between two snapshots next to each other with a different answer at each end. None if the answers at the ends of the whole
    /// stretch are the same, or there is no snapshot between them.
    async fn narrow(self, history: &History, from: Seq, to: Seq) -> anyhow::Result<Option<Narrowed>> {
        let mut at_end = recompute(history, to).await?;
        let (mut low, mut high) = (from, at_end.core.seq());
        if snapshot_within(history, low, high).await?.is_none() {
            return Ok(None);
        }
        let mut at_begin = recompute(history, from).await?;
        let (begin, end) = (self.look(&mut at_begin), self.look(&mut at_end));
        if begin.holds == end.holds {
            return Ok(None);
        }
        let mut asked = begin.asked + end.asked;
        while let Some(mut between) = snapshot_within(history, low, high).await? {
            let under = self.look(&mut between);
            asked += under.asked;
            *(if under.holds == begin.holds { &mut low } else { &mut high }) = under.from;
        }
        Ok((low > from || high < to).then_some(Narrowed { from: low, to: high, whole_from: begin.from, asked }))
    }

    /// The answer at a moment, before anything is seen.
    fn look(self, past: &mut Past) -> Under {
        let mut under = Under {
            from: past.core.seq(),
            holds: false,
            answer: None,
            involved: BTreeSet::new(),
            trail: Trail::new(&past.core),
            found: None,
            asked: 0,
            records: 0,
        };
        self.ask(&mut under, &mut past.core);
        under.holds = self.expect.holds(under.answer.as_ref());
        under
    }

    fn see(self, under: &mut Under, core: &mut Core, Seen { record, effect }: Seen<'_>) -> ControlFlow<()> {
        under.records += 1;
        let steps = under.trail.step(core, record);
        if core.take_updates().is_empty() && !self.concerns(under, &effect.delta) {
            return ControlFlow::Continue(());
        }
        let before = under.answer.take();
        self.ask(under, core);
        if self.expect.holds(under.answer.as_ref()) == under.holds {
            return ControlFlow::Continue(());
        }
        under.found = Some(Found { record: Cause::new(record, &steps), before, after: under.answer.take() });
        ControlFlow::Break(())
    }

    /// Whether a change may be one of who asks, or of the address that a name stands for.
    fn concerns(self, under: &Under, delta: &Delta) -> bool {
        let name = self.question.from.rsplit('/').next().unwrap_or_default();
        !delta.services.is_empty()
            || !delta.namespaces.is_empty()
            || delta.mesh.is_some()
            || delta.pods.keys().any(|pod| pod.name().starts_with(name) || under.involved.contains(pod))
            || (under.involved.is_empty() && !delta.pods.is_empty())
    }

    fn ask(self, under: &mut Under, core: &mut Core) {
        under.asked += 1;
        under.involved.clear();
        under.answer = None;
        if let Some(client) = proxies::find_if_there(core, &self.question.from) {
            under.answer = self.question.ask_as(&Decider::new(core), &client).and_then(Result::ok);
            under.involved.insert(client);
        }
        let endpoints = under.answer.iter().flat_map(|answer| answer.journey.endpoints());
        under.involved.extend(endpoints.filter_map(|(_, endpoint)| endpoint.pod.parse().ok()));
        core.follow(Followed::These(under.involved.clone()));
    }
}
