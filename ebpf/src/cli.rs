//! The command line of `fsm-interceptor`.

use crate::{agent, interceptor::Interceptor};
use anyhow::Result;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf};
use tracing_subscriber::EnvFilter;

/// Interception of pods' connections with eBPF.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Intercept the pods of this node that have a sidecar, until ended; they stay intercepted then.
    Run(RunArgs),
    /// Say what this machine offers of what interception needs, and by which mechanism pods are intercepted; exits with 1 if by
    /// none.
    Probe {
        /// Form of the output.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// End the interception of all pods that an agent, which must be gone, left intercepted.
    Clear {
        #[command(flatten)]
        pins: Pins,
    },
}

#[derive(Debug, Parser)]
struct RunArgs {
    /// Name of the node, as its pods have it in spec.nodeName.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    #[command(flatten)]
    pins: Pins,
    /// Where the node's cgroup v2 hierarchy is mounted (default: as /proc/self/mounts says).
    #[arg(long)]
    cgroup_root: Option<PathBuf>,
    /// Let connections go direct while a pod's proxy does not listen, instead of refusing them.
    #[arg(long)]
    fail_open: bool,
    /// How to intercept.
    #[arg(long, value_enum, default_value_t = agent::Asked::Auto)]
    mechanism: agent::Asked,
    /// Namespace of the control plane, where the MeshConfig is.
    #[arg(long, default_value = "fsm-system", env = "FSM_NAMESPACE")]
    fsm_namespace: String,
    /// Name of the MeshConfig.
    #[arg(long, default_value = "fsm-mesh-config")]
    fsm_config_name: String,
    /// Where to serve /health/ready, /health/alive and /metrics.
    #[arg(long, default_value = "0.0.0.0:9094")]
    listen: SocketAddr,
}

#[derive(Debug, Parser)]
struct Pins {
    /// Where tables and attachments outlive the agent: a folder on a BPF file system.
    #[arg(long, default_value = "/sys/fs/bpf/fsm")]
    pin_folder: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Runs the command.
pub fn main(args: Args) -> Result<()> {
    match args.command {
        Command::Run(args) => run(args),
        Command::Probe { output } => probe(output),
        Command::Clear { pins } => {
            let pods = Interceptor::open(&pins.pin_folder)?.clear()?;
            println!("{pods} pods are no longer intercepted");
            Ok(())
        }
    }
}

fn run(args: RunArgs) -> Result<()> {
    let filter = EnvFilter::try_from_env("FSM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Whoever calls may have set up logs already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    let options = agent::Options {
        node_name: args.node_name,
        pin_folder: args.pins.pin_folder,
        cgroup_root: args.cgroup_root,
        fail_closed: !args.fail_open,
        mechanism: args.mechanism,
        mesh_config: (args.fsm_namespace, args.fsm_config_name),
        listen: args.listen,
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(agent::run(options))
}

fn probe(output: Output) -> Result<()> {
    let table = crate::probe();
    match output {
        Output::Table => print!("{table}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&table)?),
    }
    if let (Some(ebpf), Some(nftables)) = (table.missing_for_ebpf(), table.missing_for_nftables()) {
        anyhow::bail!("pods cannot be intercepted here: eBPF needs {ebpf}; nftables needs {nftables}");
    }
    Ok(())
}
