//! The command line of `fsm-interceptor`.

use anyhow::Result;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};

/// Interception of pods' connections with eBPF.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what this machine offers of what interception needs; exits with 1 if something is missing.
    Probe {
        /// Form of the output.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Runs the command.
pub fn main(args: Args) -> Result<()> {
    match args.command {
        Command::Probe { output } => {
            let table = crate::probe();
            match output {
                Output::Table => print!("{table}"),
                Output::Json => println!("{}", serde_json::to_string_pretty(&table)?),
            }
            let missing: Vec<&str> =
                table.features.iter().filter(|f| f.missing.is_some()).map(|feature| feature.name).collect();
            anyhow::ensure!(missing.is_empty(), "pods cannot be intercepted here, missing: {}", missing.join(", "));
            Ok(())
        }
    }
}
