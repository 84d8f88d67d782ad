//! Starting, running and stopping the controller.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use fsm_store::{EventLog, Retention, SledLog};
use futures::StreamExt;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Args, Durability, known, settings};
use crate::admission::{INJECT_PATH, InjectionWebhook, VALIDATE_PATH, ValidationWebhook, WebhookService, register};
use crate::ca::{Authority, CaError, ServerCertificate, Signer, SigningService, load_or_create};
use crate::debug::DebugService;
use crate::fact::{ControllerStarted, ControllerStopped, Fact};
use crate::kubernetes::{self, Causes};
use crate::metrics::Metrics;
use crate::serve::{Bound, GrpcService, HealthService, Protocol, Readiness, bind, tls_for_proxies, tls_for_webhooks};
use crate::telemetry::{self, OTLP_ENDPOINT};
use crate::trace::Change;
use crate::watch::watch_all;
use crate::{ControlPlane, FactSink, control_plane, snapshots};

/// Time between looks at the authority's Secret, where an intermediate is renewed.
const AUTHORITY_CHECK: Duration = Duration::from_secs(6 * 3600);
/// Time before trying again when the Kubernetes API doesn't answer.
const RETRY: Duration = Duration::from_secs(1);

/// How long the end waits for the digests of the last state.
const LAST_DIGESTS: Duration = Duration::from_millis(800);

const AUTHORITY: &str = "certificate authority";
const WEBHOOKS: &str = "webhooks";

/// Runs the controller until SIGTERM or SIGINT.
pub fn main(args: Args) -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads to run on")?;
    runtime.block_on(async {
        let (telemetry, level) = telemetry::init(args.log.as_deref(), args.log_format, "fsm-controller")?;
        let result = controller(args, level).await;
        telemetry.shutdown();
        result
    })
}

/// The listeners, opened before anything else so that a port in use is the first thing said.
struct Listeners {
    stream: Bound,
    health: Bound,
    debug: Bound,
    inject: Bound,
    validate: Bound,
}

impl Listeners {
    async fn open(args: &Args) -> anyhow::Result<Self> {
        Ok(Self {
            stream: bind(args.stream_addr, "the proxies' stream", "stream-addr").await?,
            health: bind(args.health_addr, "health and metrics", "health-addr").await?,
            debug: bind(args.debug_addr, "the debug API", "debug-addr").await?,
            inject: bind(args.inject_addr, "the mutating webhook", "inject-addr").await?,
            validate: bind(args.validate_addr, "the validating webhook", "validate-addr").await?,
        })
    }
}

async fn controller(args: Args, level: Option<telemetry::LogLevel>) -> anyhow::Result<()> {
    let listeners = Listeners::open(&args).await?;
    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    let (readiness, metrics) = (Readiness::default(), Arc::new(Metrics::default()));
    readiness.expect(AUTHORITY);
    readiness.expect(WEBHOOKS);
    let health = HealthService::new(readiness.clone(), Arc::clone(&metrics));
    servers.spawn(listeners.health.serve(Protocol::Plain, health, stop.clone()));

    let log = Arc::new(open_log(&args.data_dir, args.durability)?);
    let client = client().await?;
    let mut terminated = std::pin::pin!(termination()?);
    let authority = tokio::select! {
        authority = authority(&client, &args) => authority?,
        () = &mut terminated => return Ok(()),
    };
    let (root, trust_pem) = (authority.root().clone(), authority.trust_pem().to_owned());
    let signer = Signer::new(authority);
    let certificate =
        ServerCertificate::new(signer.clone(), &args.trust_domain, &args.fsm_namespace, SystemTime::now())?;
    readiness.met(AUTHORITY);

    let control = ControlPlane::start(log.clone(), control_plane::Options::default()).await?;
    let control = Arc::new(control);
    metrics.observe(&control);
    let watches = known::watches(&control.catalog());
    let started = Fact::ControllerStarted(started(&args, &trust_pem));
    let change = Change::begin("start", args.mesh_name.clone());
    let seq = control.facts().append(&started, change.context).await.context("the start can't be recorded")?;
    drop(change);
    tracing::info!(%seq, data_dir = %args.data_dir.display(), mesh = args.mesh_name, "the control plane is running");

    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&metrics).follow(log.clone(), seq));
    tasks.spawn(snapshots::keep(log.clone(), policy(&args)));
    tasks.spawn(settings::follow(control.injection(), signer.clone(), level));
    tasks.spawn(Arc::clone(&certificate).keep_fresh());
    tasks.spawn(keep_authority(client.clone(), args.clone(), signer.clone()));

    let facts = control.facts();
    let signing = SigningService::new(signer, client.clone(), facts.clone(), args.trust_domain.clone());
    let grpc = GrpcService::new(control.stream_service(), signing);
    let proxies_tls = Protocol::Tls(tls_for_proxies(Arc::clone(&certificate), &root)?);
    servers.spawn(listeners.stream.serve(proxies_tls, grpc, stop.clone()));
    let webhooks_tls = Protocol::Tls(tls_for_webhooks(certificate)?);
    let inject = WebhookService::new(INJECT_PATH, InjectionWebhook::new(control.injection(), facts));
    servers.spawn(listeners.inject.serve(webhooks_tls.clone(), inject, stop.clone()));
    let validate = WebhookService::new(VALIDATE_PATH, ValidationWebhook::new(metrics));
    servers.spawn(listeners.validate.serve(webhooks_tls, validate, stop.clone()));
    let debug = DebugService::new(log.clone(), Arc::clone(&control));
    servers.spawn(listeners.debug.serve(Protocol::Plain, debug, stop.clone()));

    tasks.spawn(register_webhooks(client.clone(), args.clone(), trust_pem, readiness.clone()));
    let watching = watch_all(client, watches, log.clone(), readiness);

    let result = tokio::select! {
        () = terminated => {
            tracing::info!("stopping");
            Ok(())
        }
        reason = control.failed() => Err(anyhow::anyhow!("the control plane can't go on: {reason}")),
        result = watching => result.map_err(anyhow::Error::from),
    };
    stop.cancel();
    servers.join_all().await;
    tasks.shutdown().await;
    if result.is_ok() {
        let facts = control.facts();
        record_end(&facts, &*log, &args.mesh_name).await;
    }
    drop(control);
    match snapshots::take(&*log).await {
        Ok(seq) => tracing::info!(%seq, "took a snapshot: the next start begins with it"),
        Err(error) => tracing::error!(%error, "no snapshot was taken: the next start takes longer"),
    }
    // An empty append ends when all that was handed in before is durable.
    log.append(Vec::new()).await.context("the last records can't be written")?;
    result
}

fn open_log(dir: &Path, durability: Durability) -> anyhow::Result<SledLog> {
    let durability = match durability {
        Durability::Process => fsm_store::Durability::Process,
        Durability::Power => fsm_store::Durability::Power,
    };
    let options = fsm_store::Options { durability, ..fsm_store::Options::default() };
    Ok(SledLog::open(dir, options)?)
}

fn policy(args: &Args) -> snapshots::Policy {
    snapshots::Policy {
        every_records: args.snapshot_every,
        retention: Retention { age: args.retain_age.0, bytes: args.retain_bytes.0 },
        ..snapshots::Policy::default()
    }
}

/// Records that this is an end in good order, and waits for the digests of what this run came to.
async fn record_end(facts: &FactSink, log: &dyn EventLog, mesh_name: &str) {
    let change = Change::begin("stop", mesh_name.to_owned());
    let stopped = Fact::ControllerStopped(ControllerStopped { mesh_name: mesh_name.to_owned() });
    let seq = match facts.append(&stopped, change.context).await {
        Ok(seq) => seq,
        Err(error) => {
            tracing::error!(%error, "the end can't be recorded");
            return;
        }
    };
    let mut batches = log.tail(seq);
    let digests = async {
        while let Some(Ok(batch)) = batches.next().await {
            if batch.iter().any(|record| record.seq > seq && record.entry.topic == "digest") {
                break;
            }
        }
    };
    if tokio::time::timeout(LAST_DIGESTS, digests).await.is_err() {
        tracing::warn!(%seq, "the state's digests were not recorded in time");
    }
}

async fn client() -> anyhow::Result<Client> {
    let config = kube::Config::infer().await.map_err(|error| {
        anyhow::anyhow!(
            "no access to a Kubernetes API: run in a pod with a ServiceAccount, or set KUBECONFIG to a kubeconfig file ({})",
            Causes(&error)
        )
    })?;
    Ok(kubernetes::client(config, "fsm-controller")?)
}

/// The authority; waits for a Kubernetes API that doesn't answer yet.
async fn authority(client: &Client, args: &Args) -> anyhow::Result<Authority> {
    let mut said = String::new();
    loop {
        let (namespace, name) = (&args.fsm_namespace, &args.ca_bundle_secret_name);
        match load_or_create(client.clone(), namespace, name, SystemTime::now()).await {
            Ok(authority) => return Ok(authority),
            Err(error @ CaError::Secret { .. }) => {
                say_once(&mut said, &error);
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Logs what is tried again and again when it begins, and when the reason changes.
fn say_once(said: &mut String, error: &dyn std::error::Error) {
    let text = error.to_string();
    if *said != text {
        tracing::warn!("{text}; trying again until it works");
        *said = text;
    }
}

/// Takes over (or makes) a new intermediate long before the old one ends.
async fn keep_authority(client: Client, args: Args, signer: Signer) {
    loop {
        tokio::time::sleep(AUTHORITY_CHECK).await;
        let (namespace, name) = (&args.fsm_namespace, &args.ca_bundle_secret_name);
        match load_or_create(client.clone(), namespace, name, SystemTime::now()).await {
            Ok(authority) if authority.root() == signer.authority().root() => signer.replace_authority(authority),
            Ok(_) => {
                tracing::error!(%namespace, %name, "the Secret holds another root: restart the controller and all proxies to use it")
            }
            Err(error) => tracing::error!(%error, "the certificate authority can't be checked"),
        }
    }
}

async fn register_webhooks(client: Client, args: Args, trust_pem: String, readiness: Readiness) {
    let mut said = String::new();
    while let Err(error) = register(client.clone(), &args.mesh_name, &args.fsm_namespace, &trust_pem).await {
        say_once(&mut said, &error);
        tokio::time::sleep(RETRY).await;
    }
    readiness.met(WEBHOOKS);
}

fn started(args: &Args, trust_pem: &str) -> ControllerStarted {
    ControllerStarted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mesh_name: args.mesh_name.clone(),
        mesh_namespace: args.fsm_namespace.clone(),
        mesh_config: args.fsm_config_name.clone(),
        trust_domain: args.trust_domain.clone(),
        trust_bundle_pem: trust_pem.to_owned(),
        sidecar_image: args.sidecar_image.clone(),
        otlp_endpoint: std::env::var(OTLP_ENDPOINT).unwrap_or_default(),
    }
}

/// Ends at SIGTERM or SIGINT.
fn termination() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be waited for")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
