//! The state machines at a moment of the past.

use anyhow::ensure;
use clap::Args;
use fsm_actors::Core;
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

    /// Recomputes the state at the moment. `each` sees every record up to it.
    pub(super) async fn past(&self, history: &History, mut each: impl FnMut(&Record)) -> anyhow::Result<Past> {
        let upto = match self.at {
            Some(moment) => history.resolve(moment).await?,
            None => Seq(u64::MAX),
        };
        let mut past = Past { core: Core::default(), time: Timestamp(0) };
        each_record(history, upto, |record| {
            past.core.apply_one(record);
            past.time = record.time;
            each(record);
        })
        .await?;
        ensure!(past.core.seq() > Seq::ZERO, "{} has no records at that moment", history.place());
        Ok(past)
    }
}

/// All records from the first one to `upto`. History has to be there from its beginning: a state is what all of it led to.
pub(super) async fn each_record(history: &History, upto: Seq, mut each: impl FnMut(&Record)) -> anyhow::Result<()> {
    let mut records = history.records(Seq::ZERO, false);
    let mut first = true;
    while let Some(batch) = records.try_next().await? {
        for record in batch.iter() {
            if record.seq > upto {
                return Ok(());
            }
            ensure!(
                !first || record.seq == Seq(1),
                "the history in {} begins with record {}: what led there can't be recomputed",
                history.place(),
                record.seq
            );
            first = false;
            each(record);
        }
    }
    Ok(())
}
