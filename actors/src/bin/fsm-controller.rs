//! The control plane as a program of its own; `fsm` contains it too.

use std::process::ExitCode;

use clap::Parser;
use fsm_actors::cli::{Args, main as run};

/// The control plane of FSM.
#[derive(Parser)]
#[command(name = "fsm-controller", version)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn main() -> ExitCode {
    match run(Program::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fsm-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}
