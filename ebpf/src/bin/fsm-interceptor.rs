//! `fsm-interceptor`: interception on one node.

use clap::Parser;

#[derive(Parser)]
#[command(name = "fsm-interceptor", version, about)]
struct Cli {
    #[command(flatten)]
    args: fsm_ebpf::cli::Args,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    fsm_ebpf::cli::main(Cli::parse().args)
}
