//! `fsm local up | down | status`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::apply::apply;
use crate::cluster::{LocalCluster, LocalConfig};
use crate::{home, service};

/// Run this machine as a one-node Kubernetes cluster, for development and tests.
#[derive(Debug, Args)]
pub struct LocalArgs {
    #[command(subcommand)]
    pub command: LocalCommand,
    /// Form of the answer on stdout
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum LocalCommand {
    /// Bring the cluster up and run it in the foreground until Ctrl-C
    Up(UpArgs),
    /// End a running cluster and clean up after a crashed one
    Down(DataDir),
    /// Say whether the cluster is running, and where
    Status(DataDir),
    /// Cut the network between two nodes
    Cut(CutArgs),
    /// Mend all cuts between nodes
    Mend(DataDir),
}

#[derive(Debug, Args)]
pub struct DataDir {
    /// Where the cluster keeps everything
    #[arg(long, value_name = "DIR", default_value = "/var/lib/fsm-local")]
    pub data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct CutArgs {
    #[command(flatten)]
    pub home: DataDir,
    /// A node
    pub one: String,
    /// The node it shall not reach, and not be reached by
    pub other: String,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub home: DataDir,
    /// Manifests to apply once the cluster is up
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub apply: Vec<PathBuf>,
    /// The API's port on 127.0.0.1 (any free one if not given)
    #[arg(long, value_name = "N")]
    pub api_port: Option<u16>,
    /// How many nodes, each with a network of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub nodes: u8,
    /// Hold requests to roles and bindings (RBAC); without, every client with credentials may do everything
    #[arg(long)]
    pub rbac: bool,
    /// Give Services that ask for it an IPv6 address too
    #[arg(long)]
    pub dual_stack: bool,
    /// What a container that keeps failing waits before its second restart, in seconds; then twice as long each time
    /// (a kubelet begins with 10)
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub restart_delay: u64,
}

/// Runs the command.
pub async fn run(args: LocalArgs) -> anyhow::Result<()> {
    let json = args.output == Output::Json;
    match args.command {
        LocalCommand::Up(args) => up(args, json).await,
        LocalCommand::Down(home) => down(&home.data_dir, json).await,
        LocalCommand::Status(home) => status(&home.data_dir, json).await,
        LocalCommand::Cut(args) => {
            let client = client_of(&args.home.data_dir).await?;
            service::cut(&client, &args.one, &args.other).await?;
            Ok(())
        }
        LocalCommand::Mend(home) => Ok(service::mend(&client_of(&home.data_dir).await?).await?),
    }
}

async fn up(args: UpArgs, json: bool) -> anyhow::Result<()> {
    // Watched from the start: a Ctrl-C while coming up ends what is there already.
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A closed terminal says hang-up.
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut manifests = Vec::new();
    for file in &args.apply {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        manifests.push((file.display().to_string(), text));
    }
    let executable = std::env::current_exe().context("cannot find this program's own file")?;
    let config = LocalConfig {
        api_port: args.api_port,
        nodes: args.nodes,
        rbac: args.rbac,
        dual_stack: args.dual_stack,
        restart_delay: Duration::from_secs(args.restart_delay),
        ..LocalConfig::new(&args.home.data_dir, executable)
    };
    let coming = async {
        let cluster = LocalCluster::up(config).await?;
        for (name, text) in &manifests {
            if let Err(error) = apply(&cluster.client(), name, text).await {
                cluster.shutdown().await;
                return Err(error.into());
            }
        }
        anyhow::Ok(cluster)
    };
    let cluster = tokio::select! {
        cluster = coming => cluster?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
        _ = hangup.recv() => return Ok(()),
    };
    let kubeconfig = cluster.kubeconfig_path().display().to_string();
    if json {
        let api = cluster.api_address().map(|address| format!("https://{address}"));
        println!("{}", json!({"kubeconfig": kubeconfig, "apiServer": api, "pid": std::process::id()}));
    } else {
        println!("export KUBECONFIG={kubeconfig}");
        eprintln!("the cluster is up; Ctrl-C ends it");
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    eprintln!("going down; Ctrl-C again to end pods at once");
    tokio::select! {
        () = cluster.shutdown() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn down(dir: &Path, json: bool) -> anyhow::Result<()> {
    let was_running = home::down(dir).await?;
    if json {
        println!("{}", json!({"wasRunning": was_running}));
    } else if was_running {
        println!("the cluster of {} is down", dir.display());
    } else {
        println!("no cluster was running in {}", dir.display());
    }
    Ok(())
}

async fn status(dir: &Path, json: bool) -> anyhow::Result<()> {
    let Some(running) = home::running(dir)? else {
        if json {
            println!("{}", json!({"running": false}));
        } else {
            println!("no cluster is running in {}; start one with `fsm local up`", dir.display());
        }
        return Ok(());
    };
    let pods = pods(&running.kubeconfig).await;
    let counts = pods.as_ref().map(|pods| {
        let ready = pods.iter().filter(|pod| crate::workload::is_ready(pod)).count();
        (ready, pods.len())
    });
    if json {
        let pods = counts.as_ref().map(|(ready, total)| json!({"ready": ready, "total": total})).ok();
        println!(
            "{}",
            json!({"running": true, "pid": running.pid, "kubeconfig": running.kubeconfig, "apiServer": running.api_server, "pods": pods})
        );
        return Ok(());
    }
    println!("running   process {}", running.pid);
    println!("API       {}", running.api_server);
    println!("kubectl   export KUBECONFIG={}", running.kubeconfig.display());
    match counts {
        Ok((ready, total)) => println!("pods      {ready} of {total} ready"),
        Err(error) => println!("pods      unknown: {error:#}"),
    }
    Ok(())
}

async fn pods(kubeconfig: &Path) -> anyhow::Result<Vec<Pod>> {
    Ok(Api::all(client(kubeconfig).await?).list(&ListParams::default()).await?.items)
}

async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Of the cluster that runs in `dir`.
async fn client_of(dir: &Path) -> anyhow::Result<Client> {
    let running = home::running(dir)?;
    let running = running
        .with_context(|| format!("no cluster is running in {}; start one with `fsm local up`", dir.display()))?;
    client(&running.kubeconfig).await
}
