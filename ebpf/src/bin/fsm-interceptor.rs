//! `fsm-interceptor`: interception on one node.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "fsm-interceptor", version, about)]
struct Cli {
    #[command(flatten)]
    args: fsm_ebpf::cli::Args,
}

fn main() -> ExitCode {
    match fsm_ebpf::cli::main(Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fsm-interceptor: {error:#}");
            ExitCode::FAILURE
        }
    }
}
