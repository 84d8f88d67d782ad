//! `fsm log`: the event log, from its directory or from a running controller.

mod compact;
mod export;
mod ls;
mod moment;
mod ndjson;
mod output;
mod redact;
mod source;
mod stat;
mod verify;

use clap::{Args, Subcommand};

pub(crate) use self::ls::summary_of;
pub(crate) use self::moment::{Moment, time_text};
pub(crate) use self::ndjson::{json_line, parse_line, trace_id};
pub(crate) use self::output::{Format, Out, ignore_closed_pipe};
pub(crate) use self::source::{Batches, History, HistoryArgs};

/// The event log: what happened to the mesh, in order.
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, Subcommand)]
enum LogCommand {
    /// How much there is: records, times, sizes, topics.
    Stat(stat::StatArgs),
    /// List records, oldest first.
    Ls(ls::LsArgs),
    /// Print one record in full.
    Show(ls::ShowArgs),
    /// Print the last records, and then every new one as it comes.
    Tail(ls::TailArgs),
    /// Check every frame: checksums, order, and that each continues the one before it.
    Verify(verify::VerifyArgs),
    /// Write history, or a part of it, to one file that can be carried elsewhere.
    Export(export::ExportArgs),
    /// Make a log's directory of an exported file.
    Import(export::ImportArgs),
    /// Drop old history that no snapshot needs.
    Compact(compact::CompactArgs),
}

/// Runs `fsm log …`.
pub async fn run(args: LogArgs) -> anyhow::Result<()> {
    let done = match args.command {
        LogCommand::Stat(args) => stat::run(args).await,
        LogCommand::Ls(args) => ls::run(args).await,
        LogCommand::Show(args) => ls::show(args).await,
        LogCommand::Tail(args) => ls::tail(args).await,
        LogCommand::Verify(args) => verify::run(args).await,
        LogCommand::Export(args) => export::run(args).await,
        LogCommand::Import(args) => export::import(args),
        LogCommand::Compact(args) => compact::run(args).await,
    };
    ignore_closed_pipe(done)
}
