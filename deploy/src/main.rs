//! `fsm`: the command line of the mesh, and, called by another name, each of its programs.
//!
//! One executable holds everything, so that building the CLI builds the mesh: called as `fsm-controller`, `fsm-proxy`
//! or `fsm-interceptor` (a link is enough) it is that program. See docs/decisions/0001-one-executable.md.

mod cluster;
mod demo;
mod failure;
mod install;
mod log;
mod namespace;
mod readiness;
mod replay;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A service mesh whose memory is a log.
#[derive(Debug, Parser)]
#[command(name = "fsm", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One of the other programs, by its arguments.
#[derive(Debug, Parser)]
#[command(version)]
struct Program<A: clap::Args> {
    #[command(flatten)]
    args: A,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    /// One machine as a Kubernetes cluster, for development and tests.
    Local(fsm_local::cli::LocalArgs),
    Log(log::LogArgs),
    Replay(replay::ReplayArgs),
    Install(install::InstallArgs),
    Uninstall(install::UninstallArgs),
    Namespace(namespace::NamespaceArgs),
    #[command(hide = true)]
    DemoApp(demo::apps::AppArgs),
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    let called_as = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&called_as).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let ended = match program {
        "fsm-controller" => fsm_actors::cli::main(Program::parse().args),
        "fsm-proxy" => fsm_proxy::cli::main(Program::parse().args),
        "fsm-interceptor" => fsm_ebpf::cli::main(Program::parse().args),
        _ => run(Cli::parse().command),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", failure::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::run(args).await,
            Command::Local(args) => fsm_local::cli::run(args).await,
            Command::Log(args) => log::run(args).await,
            Command::Replay(args) => replay::run(args).await,
            Command::Install(args) => install::run(args).await,
            Command::Uninstall(args) => install::run_uninstall(args).await,
            Command::Namespace(args) => namespace::run(args).await,
            Command::DemoApp(args) => demo::apps::run(args).await,
            Command::Version => {
                println!("fsm {}", env!("CARGO_PKG_VERSION"));
                Ok(())
            }
        }
    })
}
