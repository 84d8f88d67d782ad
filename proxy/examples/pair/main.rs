//! A client's and a server's proxy for measurements: the real data path, which gets its certificate and its
//! configuration over the real stream, from a small controller that each of them starts beside it.
//!
//! `pair outbound` and `pair inbound` run until they are ended. They take from the environment `WORKERS` (threads),
//! `CERTS` (a directory for the key that both controllers sign with) and, on 127.0.0.1, `OUT_HTTP`, `OUT_H2`,
//! `OUT_CONN` and `OUT_TCP` (where clients connect), `APP_HTTP`, `APP_H2`, `APP_CONN` and `APP_TCP` (the
//! applications), and `IN_HTTP` (between the two). `pair rate` puts load on something at a fixed rate,
//! `pair handshakes` makes connections that carry nothing.

mod control;
mod handshakes;
mod mesh;
mod rate;

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use fsm_proxy::accept::OriginalDst;
use fsm_proxy::cli;
use fsm_proxy::control::{Backoff, Control, Environment};
use fsm_proxy::sidecar::{Addresses, Config, Handle, Sidecar, Sources};
use fsm_proxy::tls::{MeshTls, Trust};
use fsm_proxy::workers::{self, Workers};
use fsm_proxy_config::SpiffeId;

use mesh::{SERVICES, Side};

fn main() -> anyhow::Result<()> {
    let usage = "usage: pair outbound|inbound|rate|handshakes …, see the head of proxy/examples/pair/main.rs";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["outbound"] => workers::runtime()?.block_on(proxy(Side::Outbound)),
        ["inbound"] => workers::runtime()?.block_on(proxy(Side::Inbound)),
        ["control", "outbound"] => control::run(Side::Outbound),
        ["control", "inbound"] => control::run(Side::Inbound),
        ["rate", arguments @ ..] => rate::run(arguments),
        ["handshakes", arguments @ ..] => handshakes::run(arguments),
        _ => bail!(usage),
    }
}

/// A value from the environment.
fn variable<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(name: &str) -> anyhow::Result<T> {
    let text = std::env::var(name).with_context(|| format!("{name} is not set"))?;
    text.parse().with_context(|| format!("{name} is \"{text}\""))
}

/// The address on 127.0.0.1 whose port is in the environment.
fn local(name: &str) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, variable::<u16>(name)?)))
}

async fn proxy(side: Side) -> anyhow::Result<()> {
    cli::keep_freed_memory();
    cli::raise_file_limit().context("the limit of open files")?;
    let (mut controller, environment) = start_controller(side)?;
    let sources = Sources { tls: MeshTls::starting(Duration::from_secs(5)), ..Sources::default() };
    let _control = Control::start(environment, sources.tls.clone(), sources.snapshots.clone());
    let workers = Workers::start(variable("WORKERS")?)?;
    let handles = match side {
        Side::Outbound => outbound(&sources, &workers)?,
        Side::Inbound => vec![Sidecar::start(config(none(vec![], vec![local("IN_HTTP")?]), None, &workers)?, sources)?],
    };
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?.recv().await;
    drop(handles);
    // It ends when its input does.
    drop(controller.stdin.take());
    controller.wait()?;
    Ok(())
}

/// One listener for each service, as clients here dial a port and not an address of the cluster.
fn outbound(sources: &Sources, workers: &Workers) -> anyhow::Result<Vec<Handle>> {
    let start = |(index, service): (usize, &mesh::Service)| {
        let addresses = none(vec![local(&format!("OUT_{}", service.name))?], vec![]);
        let destination = OriginalDst::Fixed(SocketAddr::from((mesh::address(index), mesh::PORT)));
        Ok(Sidecar::start(config(addresses, Some(destination), workers)?, sources.clone())?)
    };
    SERVICES.iter().enumerate().map(start).collect()
}

fn none(outbound: Vec<SocketAddr>, mesh: Vec<SocketAddr>) -> Addresses {
    Addresses { outbound, mesh, capture: vec![], metrics: vec![], probes: vec![], names: vec![] }
}

fn config(addresses: Addresses, destination: Option<OriginalDst>, workers: &Workers) -> anyhow::Result<Config> {
    let original_dst = destination.unwrap_or(OriginalDst::Kernel);
    Ok(Config {
        addresses,
        original_dst,
        mesh_port: variable("IN_HTTP")?,
        workers: workers.clone(),
        ..Config::default()
    })
}

/// A controller in a process and process group of its own, so that it is not measured, and what the injector would
/// tell the proxy.
fn start_controller(side: Side) -> anyhow::Result<(Child, Environment)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["control", side.as_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("the controller")?;
    let mut lines = BufReader::new(child.stdout.take().context("the controller's output")?).lines();
    let mut line = || anyhow::Ok(lines.next().context("the controller ended, see above")??);
    let (controller, token_path, trust) = (line()?, line()?, line()?);
    let environment = Environment {
        controller,
        controller_identity: SpiffeId::from_str(mesh::CONTROLLER)?,
        trust_anchors: Arc::new(Trust::from_pem(&std::fs::read_to_string(trust)?)?),
        identity: SpiffeId::from_str(side.identity())?,
        pod: side.as_str().to_owned(),
        token_path: token_path.into(),
        state_dir: None,
        backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(3)),
        timeout: Duration::from_secs(5),
    };
    Ok((child, environment))
}
