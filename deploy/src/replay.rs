//! `fsm replay`: the past, recomputed from the event log.

mod config;
mod format;
mod paint;
mod past;
mod progress;
mod proxies;
mod request;
mod run;
mod state;

use clap::{Args, Subcommand};

use crate::log::ignore_closed_pipe;

/// Time travel: what was, and what proxies were told, at any moment.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(subcommand)]
    command: ReplayCommand,
}

#[derive(Debug, Subcommand)]
enum ReplayCommand {
    /// The Kubernetes objects as they were.
    State(state::StateArgs),
    /// What a proxy was told.
    Config(config::ConfigArgs),
    /// What would have become of a request, step by step, as the proxies would have decided.
    Request(request::RequestArgs),
    /// Recompute history; with --verify compare it with every recorded digest and every acknowledged configuration.
    Run(run::RunArgs),
}

/// Runs `fsm replay …`.
pub async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let done = match args.command {
        ReplayCommand::State(args) => state::run(args).await,
        ReplayCommand::Config(args) => config::run(args).await,
        ReplayCommand::Request(args) => request::run(args).await,
        ReplayCommand::Run(args) => run::run(args).await,
    };
    ignore_closed_pipe(done)
}
