//! `fsm replay`: the past, recomputed from the event log.

mod bisect;
mod cause;
mod columns;
mod config;
mod diff;
mod differing;
mod format;
mod misuse;
mod paint;
mod past;
mod progress;
mod proxies;
mod request;
mod run;
mod state;
mod stretch;
mod tui;
mod why;

use clap::{Args, Subcommand};

use crate::log::{HistoryArgs, Moment, ignore_closed_pipe};

/// Time travel: what was, and what proxies were told, at any moment.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct ReplayArgs {
    #[command(subcommand)]
    command: Option<ReplayCommand>,
    /// Step through time on the terminal: all records, and beside them what each one did.
    #[arg(long)]
    tui: bool,
    #[command(flatten)]
    history: HistoryArgs,
    /// With --tui: the moment to begin at.
    #[arg(long, value_name = "SEQ|TIME", allow_hyphen_values = true, requires = "tui")]
    at: Option<Moment>,
}

#[derive(Debug, Subcommand)]
enum ReplayCommand {
    /// The Kubernetes objects as they were.
    State(state::StateArgs),
    /// What a proxy was told.
    Config(config::ConfigArgs),
    /// What changed between two moments, each change with the records that caused it.
    Diff(diff::DiffArgs),
    /// The records that made a resource what it is, and who was behind them.
    Why(why::WhyArgs),
    /// What would have become of a request, step by step, as the proxies would have decided.
    Request(request::RequestArgs),
    /// The first record after which the answer to a request was another one.
    Bisect(bisect::BisectArgs),
    /// Recompute history, with --verify comparing it with all that was recorded; or a history that was not, --without and --with.
    Run(run::RunArgs),
}

/// Runs `fsm replay …`.
pub async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let Some(command) = args.command else {
        if !args.tui {
            misuse::Misuse("say what to replay: state, config, diff, why, request, bisect, run, or --tui".into())
                .exit();
        }
        return tui::run(&args.history, args.at).await;
    };
    let done = match command {
        ReplayCommand::State(args) => state::run(args).await,
        ReplayCommand::Config(args) => config::run(args).await,
        ReplayCommand::Diff(args) => diff::run(args).await,
        ReplayCommand::Why(args) => why::run(args).await,
        ReplayCommand::Request(args) => request::run(args).await,
        ReplayCommand::Bisect(args) => bisect::run(args).await,
        ReplayCommand::Run(args) => run::run(args).await,
    };
    if let Err(error) = &done
        && let Some(misuse) = error.downcast_ref::<misuse::Misuse>()
    {
        misuse.exit();
    }
    ignore_closed_pipe(done)
}
