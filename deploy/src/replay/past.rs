//! The state machines at a moment of the past.

use anyhow::ensure;
use clap::Args;
use fsm_actors::Core;
use fsm_actors::core::{Panicked, Skips};
use fsm_store::{Record, Seq, Timestamp};
use futures::TryStreamExt;

use crate::log::{History, HistoryArgs, Moment};

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
    /// Time of the last record that was applied.
    pub(super) time: Timestamp,
}

impl At {
    pub(super) fn history(&self) -> anyhow::Result<History> {
        self.history.open()
    }

    /// Recomputes the state at the moment.
    pub(super) async fn past(&self, history: &History) -> anyhow::Result<Past> {
        let upto = match self.at {
            Some(moment) => history.resolve(moment).await?,
            None => Seq(u64::MAX),
        };
        let past = recompute(history, upto).await?;
        ensure!(past.core.seq() > Seq::ZERO, "{} has no records at that moment", history.place());
        Ok(past)
    }
}

/// The state after the last record that is not after `upto`. Records that make a state machine panic are left out for it, as the controller
/// leaves them out.
pub(super) async fn recompute(history: &History, upto: Seq) -> anyhow::Result<Past> {
    let mut skips = Skips::new();
    loop {
        let mut past = Past { core: Core::leaving_out(skips.clone()), time: Timestamp(0) };
        let ended = each_record(history, upto, |record| {
            past.time = record.time;
            past.core.try_apply_one(record).map(drop)
        });
        match ended.await? {
            Ok(()) => return Ok(past),
            Err(Panicked { machine, seq }) => skips.insert((machine, seq)),
        };
    }
}

/// All records from the first one to `upto`. History has to be there from its beginning: a state is what all of it led to.
/// Stops when `each` does.
pub(super) async fn each_record<E>(
    history: &History,
    upto: Seq,
    mut each: impl FnMut(&Record) -> Result<(), E>,
) -> anyhow::Result<Result<(), E>> {
    let mut records = history.records(Seq::ZERO, false);
    let mut first = true;
    while let Some(batch) = records.try_next().await? {
        for record in batch.iter() {
            if record.seq > upto {
                return Ok(Ok(()));
            }
            ensure!(
                !first || record.seq == Seq(1),
                "the history in {} begins with record {}: what led there can't be recomputed",
                history.place(),
                record.seq
            );
            first = false;
            if let Err(stop) = each(record) {
                return Ok(Err(stop));
            }
        }
    }
    Ok(Ok(()))
}
