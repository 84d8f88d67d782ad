//! `fsm replay diff`: what changed between two moments, and which record did it.

mod changes;
mod text;

use clap::Args;
use serde::Serialize;

use self::changes::Changes;
use super::paint::Paint;
use super::past::upto;
use crate::log::{Format, HistoryArgs, Moment, Out};

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    #[command(flatten)]
    history: HistoryArgs,
    /// The earlier moment: a seq, a time (RFC 3339), or a while ago (-5m).
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    from: Moment,
    /// The later moment; the end of the log if left out.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true)]
    to: Option<Moment>,
    /// Only what this proxy is told: <namespace>/<pod>, or a workload, whose first pod is taken.
    #[arg(long, value_name = "POD")]
    proxy: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One of the two moments.
#[derive(Clone, Debug, Serialize)]
struct End {
    seq: fsm_store::Seq,
    time: String,
}

pub(super) async fn run(args: DiffArgs) -> anyhow::Result<()> {
    let history = args.history.open()?;
    let (from, to) = (upto(&history, Some(args.from)).await?, upto(&history, args.to).await?);
    anyhow::ensure!(from <= to, "--from is seq {from} and --to is seq {to}: the earlier moment comes first");
    let changes = Changes::between(&history, from, to, args.proxy.as_deref()).await?;
    let mut out = Out::new();
    match args.output {
        Format::Json => out.pretty_json(&changes)?,
        Format::Text => text::lines(Paint::stdout(), &changes).into_iter().try_for_each(|line| out.line(line))?,
    }
    Ok(out.flush()?)
}
