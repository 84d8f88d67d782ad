//! History as a film: all records, packed, and the states at some of them, so that every state is near.

use std::ops::ControlFlow;

use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;
use fsm_actors::publish::Followed;
use fsm_actors::replay::objects::{ObjectStep, steps};
use fsm_store::{Record, Seq, Timestamp};

use super::reels::Reels;
use crate::log::History;
use crate::replay::cause::Cause;
use crate::replay::past::{Past, oldest, replay};

/// States that are kept at most; then every second one goes.
const KEPT: usize = 128;
/// Records from one kept state to the next, at first.
const STRIDE: usize = 64;

/// A record as it is listed.
pub(super) struct Scene {
    pub(super) seq: Seq,
    pub(super) time: Timestamp,
    pub(super) topic: String,
    pub(super) key: String,
    pub(super) about: String,
    pub(super) what: String,
    /// The proxies that were told something because of it.
    pub(super) told: Vec<ObjectName>,
}

/// See the module's documentation. A place in it is the index of a scene.
pub(super) struct Film {
    pub(super) scenes: Vec<Scene>,
    records: Reels,
    /// Before the scene of that index.
    states: Vec<(usize, Core)>,
    stride: usize,
    /// Where somebody looked last: the state before that scene.
    last: Option<(usize, Core)>,
}

/// A state, and what the last record did.
pub(super) struct Still {
    pub(super) record: Record,
    pub(super) before: Core,
    pub(super) after: Core,
    pub(super) steps: Vec<ObjectStep>,
    pub(super) cause: Cause,
}

impl Film {
    /// All of a history, from the oldest state that it can begin with.
    pub(super) async fn load(history: &History) -> anyhow::Result<Self> {
        let from = oldest(history).await?;
        let begin = |past: &mut Past| {
            past.core.follow(Followed::Everybody);
            let objects = past.core.catalog().objects().clone();
            (Self::beginning(past.core.clone()), objects, Ok(()))
        };
        let (_, (film, _, shot)) = replay(history, from, Seq(u64::MAX), begin, |(film, objects, shot), core, seen| {
            let told = core.take_updates().into_iter().map(|update| update.proxy).collect();
            let cause = Cause::new(seen.record, &steps(objects, core.catalog(), seen.record));
            *objects = core.catalog().objects().clone();
            *shot = film.shoot(seen.record, cause, told, core);
            if shot.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        shot?;
        Ok(film)
    }

    fn beginning(core: Core) -> Self {
        Self { scenes: Vec::new(), records: Reels::default(), states: vec![(0, core)], stride: STRIDE, last: None }
    }

    /// Adds a record, and the state after it.
    fn shoot(&mut self, record: &Record, cause: Cause, told: Vec<ObjectName>, core: &Core) -> anyhow::Result<()> {
        self.records.push(record.clone())?;
        self.scenes.push(Scene {
            seq: record.seq,
            time: record.time,
            topic: record.entry.topic.to_string(),
            key: record.entry.key.to_string(),
            about: cause.short_about(),
            what: cause.what,
            told,
        });
        self.keep(core);
        Ok(())
    }

    fn keep(&mut self, core: &Core) {
        let next = self.scenes.len();
        if !next.is_multiple_of(self.stride) {
            return;
        }
        self.states.push((next, core.clone()));
        if self.states.len() > KEPT {
            self.stride *= 2;
            let stride = self.stride;
            self.states.retain(|(index, _)| index.is_multiple_of(stride));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.scenes.is_empty()
    }

    /// The scene of a record, or of the last one before it.
    pub(super) fn index_of(&self, seq: Seq) -> usize {
        self.scenes.partition_point(|scene| scene.seq <= seq).saturating_sub(1)
    }

    /// The state at a scene, with the one before.
    pub(super) fn still(&mut self, index: usize) -> anyhow::Result<Still> {
        let kept = self.states.partition_point(|(at, _)| *at <= index) - 1;
        let (mut at, mut before) = match self.last.take() {
            // Stepping forward, the nearest state is the one that was shown.
            Some((at, core)) if at <= index && at >= self.states[kept].0 => (at, core),
            _ => self.states[kept].clone(),
        };
        while at < index {
            before.apply_one(self.records.get(at)?);
            at += 1;
        }
        let record = self.records.get(index)?.clone();
        let mut after = before.clone();
        after.apply_one(&record);
        self.last = Some((index, before.clone()));
        let steps = steps(before.catalog().objects(), after.catalog(), &record);
        let cause = Cause::new(&record, &steps);
        Ok(Still { record, before, after, steps, cause })
    }
}
