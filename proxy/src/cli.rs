//! The program `fsm-proxy`.

mod life;

use std::net::IpAddr;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};

use crate::control::Environment;
use crate::field_names::FieldNames;
use crate::workers::{self, Workers};

/// The data plane of FSM.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Stands beside one application in its pod. FSM's injector sets the environment that it needs.
    Sidecar(SidecarArgs),
}

#[derive(Debug, ClapArgs)]
struct SidecarArgs {
    /// Threads that carry traffic; by default as many as there are cores, 2 at most.
    #[arg(long, env = "FSM_PROXY_THREADS", value_name = "N")]
    threads: Option<usize>,
    /// How long requests under way may take to finish after SIGTERM, in seconds.
    #[arg(long, env = "FSM_PROXY_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 30)]
    drain_seconds: u64,
    /// How long everything is served as before after SIGTERM, new connections too, before the above begins, in seconds.
    #[arg(long, env = "FSM_PROXY_GRACE_SECONDS", value_name = "SECONDS", default_value_t = 0)]
    grace_seconds: u64,
    /// Take the place of a proxy that serves the same workload here already, without refusing a connection, and let another one
    /// take the place of this one. Both run in the same container as the same user.
    #[arg(long, env = "FSM_PROXY_HANDOVER", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    handover: bool,
    /// Connections that each listener serves at once.
    #[arg(long, env = "FSM_PROXY_MAX_CONNECTIONS", value_name = "N", default_value_t = 16 * 1024)]
    max_connections: usize,
    /// Requests that are under way at once, those of the application and those to it each for themselves; more are answered 503.
    #[arg(long, env = "FSM_PROXY_MAX_REQUESTS", value_name = "N", default_value_t = 16 * 1024)]
    max_requests: usize,
    /// How names of header fields from other proxies are written in HTTP/1.1, to the application and in answers to it.
    #[arg(long, env = "FSM_PROXY_FIELD_NAMES", value_name = "CASE", value_enum, default_value_t)]
    field_names: FieldNames,
    /// The address of the pod.
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    pod_ip: Option<IpAddr>,
    /// What controls the pod: its kind, for metrics.
    #[arg(long, env = "POD_CONTROLLER_KIND", value_name = "KIND", default_value = "")]
    pod_controller_kind: String,
    /// What controls the pod: its name, for metrics.
    #[arg(long, env = "POD_CONTROLLER_NAME", value_name = "NAME", default_value = "")]
    pod_controller_name: String,
    /// What is logged, in the syntax of `RUST_LOG`, such as `info` or `fsm_proxy=debug`.
    #[arg(long, env = "FSM_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

/// Runs the program until it is told to end.
///
/// # Errors
///
/// When the environment is incomplete or a port is taken; the message says which.
pub fn main(args: Args) -> anyhow::Result<()> {
    match args.mode {
        Mode::Sidecar(args) => sidecar(&args),
    }
}

fn sidecar(args: &SidecarArgs) -> anyhow::Result<()> {
    let environment = Environment::from_process()?;
    keep_freed_memory();
    let raised = raise_file_limit();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = workers::runtime().context("cannot start the runtime")?;
    let workers = Workers::start(args.threads.unwrap_or(cores.min(2))).context("cannot start threads")?;
    let ended = runtime.block_on(life::run(args, environment, raised, workers));
    // What is still under way after the drain is not waited for.
    runtime.shutdown_background();
    ended
}

/// Under load some hundred kilobytes are needed and freed many times a second; they are not given back to the kernel and
/// asked for again each time. A proxy keeps 1 MiB at most by this.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the standard library has no access to the settings of its allocator")]
    // SAFETY: the call takes two integers; a value that is not taken leaves the setting as it was.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1024 * 1024);
    }
}

/// Every connection is a file descriptor, and the usual limit is 1,024; the highest allowed one is taken.
///
/// # Errors
///
/// When the kernel does not allow it; the limit stays as it is then.
pub fn raise_file_limit() -> std::io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    #[expect(unsafe_code, reason = "the standard library has no access to resource limits")]
    // SAFETY: both calls are given a valid pointer to a `rlimit` that outlives them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if raised { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
