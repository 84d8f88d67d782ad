//! The data plane of FSM; see `fsm_proxy::cli`.

use clap::Parser;
use fsm_proxy::cli::{self, Args};

#[derive(Parser)]
#[command(name = "fsm-proxy", version, about)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn main() -> anyhow::Result<()> {
    cli::main(Program::parse().args)
}
