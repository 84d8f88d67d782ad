//! The state machines at a moment of the past, and on the way from one moment to another.

use std::ops::ControlFlow;

use anyhow::{Context, bail, ensure};
use clap::Args;
use fsm_actors::Core;
use fsm_actors::core::{self, Effect, Panicked, SNAPSHOT, Skips};
use fsm_store::{Record, RecordBatch, Seq, Timestamp};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::progress::Progress;
use crate::log::{Batches, History, HistoryArgs, Moment, time_text};

/// Batches that are read before they are wanted.
const AHEAD: usize = 4;

/// Which moment.
#[derive(Debug, Args)]
pub(super) struct At {
    #[command(flatten)]
    history: HistoryArgs,
    /// The moment: a seq, a time (RFC 3339), or a while ago (-5m); the end of the log if left out.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    at: Option<Moment>,
}

/// The state machines after a record, and when that was.
pub(super) struct Past {
    pub(super) core: Core,
    /// Time of the last record that was applied; zero if that record is dropped.
    pub(super) time: Timestamp,
}

/// A record that has just been applied.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) record: &'a Record,
    pub(super) effect: &'a Effect,
}

/// Why a replay stops before the end.
enum Stop {
    Panicked(Panicked),
    Enough,
}

impl At {
    pub(super) fn history(&self) -> anyhow::Result<History> {
        self.history.open()
    }

    /// Recomputes the state at the moment.
    pub(super) async fn past(&self, history: &History) -> anyhow::Result<Past> {
        let upto = upto(history, self.at).await?;
        let past = recompute(history, upto).await?;
        ensure!(past.core.seq() > Seq::ZERO, "{}", nothing_yet(history, self.at).await?);
        Ok(past)
    }
}

impl Past {
    /// `seq 41 (2026-11-22T14:03:00.123Z)`
    pub(super) fn moment(&self) -> String {
        match self.time {
            Timestamp(0) => format!("seq {}", self.core.seq()),
            time => format!("seq {} ({})", self.core.seq(), time_text(time)),
        }
    }
}

/// The last record of a moment; of everything, if none is given.
pub(super) async fn upto(history: &History, moment: Option<Moment>) -> anyhow::Result<Seq> {
    let Some(moment) = moment else { return Ok(Seq(u64::MAX)) };
    let seq = history.resolve(moment).await?;
    if matches!(moment, Moment::Seq(_)) {
        let last = history.last().await?.map_or(Seq::ZERO, |record| record.seq);
        ensure!(seq <= last, "there is no record {seq} in {}: the last one is {last}", history.place());
    }
    Ok(seq)
}

/// Why there is no state at a moment.
pub(super) async fn nothing_yet(history: &History, moment: Option<Moment>) -> anyhow::Result<String> {
    let mut records = history.records(Seq::ZERO, false);
    let first = records.try_next().await?;
    Ok(match (first.as_ref().and_then(|batch| batch.first()), moment) {
        (Some(first), Some(_)) => {
            let (seq, time) = (first.seq, time_text(first.time));
            format!("{} has no records at that moment: it begins with record {seq}, {time}", history.place())
        }
        _ => format!("{} has no records", history.place()),
    })
}

/// The state after the last record that is not after `upto`. Records that make a state machine panic are left out for it, as the controller
/// leaves them out.
pub(super) async fn recompute(history: &History, upto: Seq) -> anyhow::Result<Past> {
    let (past, ()) = replay(history, upto, upto, |_| (), |(), _, _| ControlFlow::Continue(())).await?;
    Ok(past)
}

/// Replays the stretch after `from` up to `to`: `begin` gets the state at `from`, `see` each record of the stretch, just applied, until it
/// has seen enough. Both may be called again from the beginning, if a state machine turns out to have left out a record.
pub(super) async fn replay<S>(
    history: &History,
    from: Seq,
    to: Seq,
    begin: impl Fn(&mut Past) -> S,
    see: impl FnMut(&mut S, &mut Core, Seen<'_>) -> ControlFlow<()>,
) -> anyhow::Result<(Past, S)> {
    replay_some(history, from, to, begin, |_, _| Pick::Apply, see).await
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    Apply,
    /// Go on as if it had not been.
    PassOver,
}

/// As [`replay`], of only those records of the stretch that `pick` wants.
pub(super) async fn replay_some<S>(
    history: &History,
    from: Seq,
    to: Seq,
    begin: impl Fn(&mut Past) -> S,
    mut pick: impl FnMut(&mut S, &Record) -> Pick,
    mut see: impl FnMut(&mut S, &mut Core, Seen<'_>) -> ControlFlow<()>,
) -> anyhow::Result<(Past, S)> {
    let mut skips = Skips::new();
    loop {
        let mut past = beginning(history, from, &skips).await?;
        let mut state: Option<S> = None;
        let first = past.core.seq();
        let ended = each_record(history, first, to, |record| {
            if state.is_none() && record.seq > from {
                state = Some(begin(&mut past));
            }
            match state.as_mut().map_or(Pick::Apply, |state| pick(state, record)) {
                Pick::Apply => {}
                Pick::PassOver => return Ok(()),
            }
            let effect = past.core.try_apply_one(record).map_err(Stop::Panicked)?;
            past.time = record.time;
            match &mut state {
                Some(state) => match see(state, &mut past.core, Seen { record, effect: &effect }) {
                    ControlFlow::Continue(()) => Ok(()),
                    ControlFlow::Break(()) => Err(Stop::Enough),
                },
                None => Ok(()),
            }
        });
        match ended.await? {
            Ok(()) | Err(Stop::Enough) => {
                let state = state.unwrap_or_else(|| begin(&mut past));
                return Ok((past, state));
            }
            Err(Stop::Panicked(Panicked { machine, seq })) => skips.insert((machine, seq)),
        };
    }
}

/// The state to begin with on the way to `upto`: of the nearest snapshot before it, if history has any.
pub(super) async fn beginning(history: &History, upto: Seq, skips: &Skips) -> anyhow::Result<Past> {
    let Some(log) = history.log() else { return of_elsewhere(history, upto, skips).await };
    let core = core::beginning(log, upto, skips).await.with_context(|| history.place())?;
    let mut time = Timestamp(0);
    // The snapshot that a compacted log begins with stands for a record that is dropped.
    if core.seq() >= log.first() {
        let last = log.read(core.seq()).try_next().await?;
        time = last.as_ref().and_then(|batch| batch.first()).map_or(time, |record| record.time);
    }
    Ok(Past { core, time })
}

/// As [`beginning`], where there is no log to read in place: a controller gives its snapshots away.
async fn of_elsewhere(history: &History, upto: Seq, skips: &Skips) -> anyhow::Result<Past> {
    let mut past = Past { core: Core::leaving_out(skips.clone()), time: Timestamp(0) };
    if let History::Controller(controller) = history
        && let Some(bytes) = controller.snapshot(upto).await?
        && let Ok(restored) = core::snapshot::restore(&bytes)
        && restored.differing.is_empty()
        && skips.iter().all(|skip| skip.1 > restored.core.seq() || restored.core.skips().contains(skip))
    {
        past.core = restored.core;
        past.core.leave_out(skips);
        // None if that record is dropped; whoever goes on from here is told of other errors.
        let last = history.records(past.core.seq(), false).try_next().await.ok().flatten();
        past.time = last.as_ref().and_then(|batch| batch.first()).map_or(past.time, |record| record.time);
    }
    Ok(past)
}

/// The seq of the oldest state that can be begun with: [`Seq::ZERO`] if all of history is there.
pub(super) async fn oldest(history: &History) -> anyhow::Result<Seq> {
    if let History::Controller(controller) = history {
        // Retention drops records up to a snapshot, and keeps that.
        return Ok(Seq(controller.status().await?.first().0.saturating_sub(1)));
    }
    let Some(log) = history.log().filter(|log| log.first() > Seq(1)) else { return Ok(Seq::ZERO) };
    let (mut oldest, mut before) = (Seq::ZERO, log.last());
    while let Some(snapshot) = log.latest_snapshot(SNAPSHOT, before).await? {
        oldest = snapshot.seq;
        before = Seq(snapshot.seq.0.saturating_sub(1));
    }
    Ok(oldest)
}

/// The records after `after` up to `upto`, until `each` stops. Those after the state "nothing yet" have to begin with the first record: a state
/// is what all of history led to.
pub(super) async fn each_record<E>(
    history: &History,
    after: Seq,
    upto: Seq,
    mut each: impl FnMut(&Record) -> Result<(), E>,
) -> anyhow::Result<Result<(), E>> {
    let from = if after == Seq::ZERO { Seq::ZERO } else { after.next() };
    let mut records = read_ahead(history.records(from, false));
    let mut progress = Progress::new(after, end(history).min(upto));
    let mut first = after == Seq::ZERO;
    while let Some(batch) = records.recv().await.transpose()? {
        for record in batch.iter() {
            if record.seq > upto {
                return Ok(Ok(()));
            }
            if first && record.seq != Seq(1) {
                bail!(
                    "the history in {} begins with record {}: what led there can't be recomputed",
                    history.place(),
                    record.seq
                );
            }
            first = false;
            if let Err(stop) = each(record) {
                return Ok(Err(stop));
            }
        }
        if let Some(last) = batch.last() {
            progress.at(last.seq);
        }
    }
    Ok(Ok(()))
}

/// Reads and unpacks the next records while those before them are looked at.
fn read_ahead(mut records: Batches) -> mpsc::Receiver<anyhow::Result<RecordBatch>> {
    let (read, batches) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        while let Some(batch) = records.next().await {
            if read.send(batch).await.is_err() {
                return;
            }
        }
    });
    batches
}

/// The last record, as far as that is known without reading.
fn end(history: &History) -> Seq {
    history.log().map_or(Seq(u64::MAX), |log| log.last())
}
