//! `fsm log compact`: dropping old history by hand.

use std::path::PathBuf;

use clap::Args;
use fsm_actors::snapshots;
use fsm_store::{EventLog, Options, Seq, SledLog};
use serde_json::json;

use super::source::History;
use super::{Format, Moment, Out};

#[derive(Debug, Args)]
pub(super) struct CompactArgs {
    /// The log's directory; no other process may have it open.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: PathBuf,
    /// Records before this seq or time may go; those that a state at or after it needs stay.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    pub(super) before: Moment,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) output: Format,
}

pub(super) async fn run(args: CompactArgs) -> anyhow::Result<()> {
    let options = Options { create: false, ..Options::default() };
    let log = SledLog::open(&args.data_dir, options)?;
    let history = History::Dir(log);
    let before = match args.before {
        Moment::Seq(seq) => seq,
        moment => history.resolve(moment).await?.next(),
    };
    let History::Dir(log) = history else { return Ok(()) };
    let (first, bytes) = (log.first(), log.stored_bytes()?);
    // With this one, all that is before it can go.
    let newest = snapshots::take(&log).await?;
    let kept = log.compact(before).await?;
    let mut out = Out::new();
    match args.output {
        Format::Json => {
            out.json(&json!({ "dropped": kept.0 - first.0, "first": kept, "last": log.last(), "snapshot": newest }))?
        }
        Format::Text if kept == first => out.line(format_args!(
            "nothing was dropped: the state at seq {before} needs the records from seq {first} on, as no snapshot lies in between"
        ))?,
        Format::Text => {
            let dropped = Seq(kept.0 - 1);
            out.line(format_args!("dropped seq {first} to {dropped}; seq {kept} to {} are kept", log.last()))?;
            out.line(format_args!(
                "{} on disk; the space that got free is used for what comes",
                super::output::human_bytes(bytes)
            ))?;
        }
    }
    Ok(out.flush()?)
}
