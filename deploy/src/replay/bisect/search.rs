//! The search for the record that changed an answer.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use fsm_actors::Core;
use fsm_actors::catalog::{Delta, ObjectName};
use fsm_actors::publish::Followed;
use fsm_store::Seq;
use serde::Serialize;

use super::Expect;
use crate::log::History;
use crate::replay::cause::{Cause, Trail};
use crate::replay::past::{Seen, replay};
use crate::replay::proxies;
use crate::replay::request::{Answer, Decider, Question};

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) question: &'a Question,
    pub(super) expect: &'a Expect,
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

impl Search<'_> {
    /// Looks for the first record after `from`, up to `to`, after which the answer is no more what it was at `from`, as far as the
    /// expectation can tell.
    ///
    /// Goes over the stretch once and stops there. The answer is only worked out anew after records that changed something for the
    /// proxies that it depends on.
    pub(super) async fn run(self, history: &History, from: Seq, to: Seq) -> anyhow::Result<Outcome> {
        let begin = |past: &mut crate::replay::past::Past| {
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
        };
        let (past, under) = replay(history, from, to, begin, |under, core, seen| self.see(under, core, seen)).await?;
        Ok(Outcome {
            request: self.question.clone(),
            expect: self.expect.clone(),
            from: under.from,
            to: past.core.seq(),
            holds_at_from: under.holds,
            found: under.found,
            records: under.records,
            asked: under.asked,
        })
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
            || delta.pods.keys().any(|pod| pod.name.starts_with(name) || under.involved.contains(pod))
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
