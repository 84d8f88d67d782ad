//! The search for the record that changed an answer.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use fsm_actors::Core;
use fsm_actors::catalog::{Delta, ObjectName};
use fsm_actors::core::Skips;
use fsm_actors::publish::Followed;
use fsm_store::{Record, Seq};
use serde::Serialize;

use super::Expect;
use super::reach::{Concerned, Reach};
use crate::log::History;
use crate::replay::cause::{Cause, Trail};
use crate::replay::past::{Past, Pick, Seen, beginning, recompute, replay_some};
use crate::replay::proxies;
use crate::replay::request::{Answer, Decider, Question, summary};

/// How often the reach may grow before everything counts.
const GROWTHS: usize = 8;

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) question: &'a Question,
    pub(super) expect: &'a Expect,
    /// The very first change is looked for, whatever snapshots there are.
    pub(super) first: bool,
    /// Every record is applied, also those that cannot concern the answer.
    pub(super) thorough: bool,
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
    /// Whether the answer didn't change before that: snapshots were not jumped to.
    pub(super) first: bool,
    /// Records that were looked at.
    pub(super) records: u64,
    /// Those of them that can concern the answer: only these were applied. None if all were.
    pub(super) concerned: Option<u64>,
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
    /// None: all records are applied.
    reach: Option<Reach>,
    concerned: u64,
    /// The reach has grown: some of the records that were passed over may concern the answer.
    grown: bool,
}

impl Under {
    /// Whether the answers are the same as far as anybody can tell.
    fn same_answer(&self, other: &Self) -> bool {
        let told =
            |under: &Self| under.answer.as_ref().map(|answer| (answer.verdict, answer.client.clone(), summary(answer)));
        told(self) == told(other)
    }
}

/// Whether a record is applied.
fn pick(under: &mut Under, record: &Record) -> Pick {
    under.records += 1;
    let Some(reach) = &mut under.reach else { return Pick::Apply };
    match reach.concerns(record) {
        // The search begins again anyway: what is left of the stretch only says what else there is within reach.
        Concerned::Yes if under.grown => Pick::PassOver,
        Concerned::Yes => {
            under.concerned += 1;
            Pick::Apply
        }
        Concerned::No => Pick::PassOver,
        Concerned::Joins(namespace) => {
            reach.join(namespace);
            under.grown = true;
            Pick::PassOver
        }
    }
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
    /// snapshots or the ends are the same, is gone over record by record; those that cannot concern the answer are passed over.
    pub(super) async fn run(self, history: &History, from: Seq, to: Seq) -> anyhow::Result<Outcome> {
        let narrowed = if self.first || self.thorough { None } else { self.narrow(history, from, to).await? };
        let (begin_at, end_at) = narrowed.as_ref().map_or((from, to), |narrowed| (narrowed.from, narrowed.to));
        let (end, under) = self.walk(history, begin_at, end_at, narrowed.is_some()).await?;
        Ok(Outcome {
            request: self.question.clone(),
            expect: self.expect.clone(),
            from: narrowed.as_ref().map_or(under.from, |narrowed| narrowed.whole_from),
            to: end,
            holds_at_from: under.holds,
            found: under.found,
            first: narrowed.is_none(),
            records: under.records,
            concerned: under.reach.is_some().then_some(under.concerned),
            asked: under.asked + narrowed.map_or(0, |narrowed| narrowed.asked),
        })
    }

    /// Goes over a stretch record by record; gives where it ended.
    async fn walk(self, history: &History, from: Seq, to: Seq, all: bool) -> anyhow::Result<(Seq, Under)> {
        if !all && !self.thorough {
            let mut at_end = recompute(history, to).await?;
            if snapshot_within(history, from, at_end.core.seq()).await?.is_none() {
                // The proof would cost more than the walk.
                return self.walk_all(history, from, to).await;
            }
            let end = self.look(&mut at_end);
            let mut reach = Reach::of(self.question);
            reach.take_in(&at_end.core, end.answer.as_ref());
            for _ in 0..GROWTHS {
                let (past, mut under) = self.walk_within(history, from, to, Some(&reach)).await?;
                if under.grown {
                    reach = under.reach.take().unwrap_or_default();
                    continue;
                }
                // What was passed over is proved not to matter where it can be: at the end, and where something was found.
                let proved = match &under.found {
                    None => end.same_answer(&under),
                    Some(found) => {
                        let at_found = self.look(&mut recompute(history, found.record.seq).await?);
                        let before = Seq(found.record.seq.0 - 1).max(from);
                        let before = self.look(&mut recompute(history, before).await?);
                        at_found.holds != under.holds && before.holds == under.holds
                    }
                };
                if proved {
                    let ended = if under.found.is_some() { past.core.seq() } else { at_end.core.seq() };
                    return Ok((ended, under));
                }
                break;
            }
        }
        self.walk_all(history, from, to).await
    }

    async fn walk_all(self, history: &History, from: Seq, to: Seq) -> anyhow::Result<(Seq, Under)> {
        let (past, under) = self.walk_within(history, from, to, None).await?;
        Ok((past.core.seq(), under))
    }

    async fn walk_within(
        self,
        history: &History,
        from: Seq,
        to: Seq,
        reach: Option<&Reach>,
    ) -> anyhow::Result<(Past, Under)> {
        let begin = |past: &mut Past| {
            let mut under = self.look(past);
            if let Some(reach) = reach {
                let mut its = reach.clone();
                its.take_in(&past.core, under.answer.as_ref());
                under.reach = Some(its);
            }
            under
        };
        let see = |under: &mut Under, core: &mut Core, seen: Seen<'_>| self.see(under, core, seen);
        replay_some(history, from, to, begin, pick, see).await
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
            reach: None,
            concerned: 0,
            grown: false,
        };
        self.ask(&mut under, &mut past.core);
        under.holds = self.expect.holds(under.answer.as_ref());
        under
    }

    fn see(self, under: &mut Under, core: &mut Core, Seen { record, effect }: Seen<'_>) -> ControlFlow<()> {
        let steps = under.trail.step(core, record);
        if core.take_updates().is_empty() && !self.concerns(under, &effect.delta) {
            return ControlFlow::Continue(());
        }
        let before = under.answer.take();
        self.ask(under, core);
        if let Some(reach) = &mut under.reach
            && reach.take_in(core, under.answer.as_ref())
        {
            under.grown = true;
            return ControlFlow::Continue(());
        }
        if self.expect.holds(under.answer.as_ref()) == under.holds {
            return ControlFlow::Continue(());
        }
        under.found = Some(Found { record: Cause::new(record, &steps), before, after: under.answer.take() });
        ControlFlow::Break(())
    }

    /// Whether a change may be one of who asks, or of the address that a name stands for.
    fn concerns(self, under: &Under, delta: &Delta) -> bool {
        !delta.services.is_empty()
            || !delta.namespaces.is_empty()
            || delta.mesh.is_some()
            || delta.pods.keys().any(|pod| proxies::may_mean(&self.question.from, pod) || under.involved.contains(pod))
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
