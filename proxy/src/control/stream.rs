//! The configuration stream: incremental xDS over mutual TLS (`proto/stream.proto` of `fsm-proxy-config`).
//!
//! One response is one version. It is compiled first; only when that succeeds does it replace the running one, as a
//! whole, and is acknowledged with the digest of everything that runs now. A version that cannot be used is refused with the
//! resource and the reason, and the running one stays; the controller sends what was refused again with the next
//! change. After a break, the first request says what the proxy has, and the controller sends the difference.

use std::sync::Arc;
use std::time::SystemTime;

use fsm_proxy_config::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use fsm_proxy_config::discovery::{CONFIG_TYPE_URL, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status};
use fsm_proxy_config::{ConfigSet, InvalidResponse, Snapshot, Update};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::channel::{Channel, ConnectError, origin};
use super::state::Refused;
use super::{Environment, State};
use crate::Snapshots;
use crate::telemetry::Span;
use crate::tls::{Identity, MeshTls, Trust};

/// The largest version that is taken, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 << 20;

/// Where versions go.
pub(super) struct Sink {
    pub tls: MeshTls,
    pub snapshots: Snapshots,
    /// For the disk.
    pub applied: watch::Sender<Option<Arc<Snapshot>>>,
    pub state: Arc<watch::Sender<State>>,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the controller refuses this proxy: {0}")]
    Refused(String),
    #[error("the stream broke: {message} ({code:?})")]
    Broke { code: Code, message: String },
    #[error("the controller closed the stream")]
    Closed,
}

impl From<tonic::Status> for StreamError {
    fn from(status: tonic::Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Self::Refused(message),
            code => Self::Broke { code, message },
        }
    }
}

/// Follows the controller for ever; begins as soon as there is a certificate.
pub(super) async fn follow(
    environment: Arc<Environment>,
    mut certificates: watch::Receiver<Option<Identity>>,
    sink: Sink,
) {
    let mut backoff = environment.backoff.clone();
    loop {
        let valid =
            |identity: &Option<Identity>| identity.as_ref().is_some_and(|one| !one.is_expired(SystemTime::now()));
        let Ok(identity) = certificates.wait_for(valid).await.map(|identity| identity.clone()) else { return };
        let Some(identity) = identity else { continue };
        let Err(error) = one_stream(&environment, &identity, &sink, || backoff.reset()).await;
        let wait = backoff.wait();
        tracing::warn!(%error, retry_ms = wait.as_millis(), "no configuration stream; traffic goes on as configured");
        sink.state.send_modify(|state| {
            state.connected = false;
            state.stream_error = Some(error.to_string());
        });
        tokio::time::sleep(wait).await;
    }
}

async fn one_stream(
    environment: &Environment,
    identity: &Identity,
    sink: &Sink,
    mut opened: impl FnMut(),
) -> Result<std::convert::Infallible, StreamError> {
    let channel = Channel::connect(environment, Some(identity)).await?;
    let client = AggregatedDiscoveryServiceClient::with_origin(channel, origin(environment));
    let mut client = client.max_decoding_message_size(MAX_RESPONSE_BYTES);
    let (requests, outgoing) = mpsc::channel(4);
    let ended = |_| StreamError::Closed;
    let first = first_request(environment, sink.snapshots.load_full().as_deref());
    requests.send(first).await.map_err(ended)?;
    let mut responses = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
    sink.state.send_modify(|state| {
        state.connected = true;
        state.stream_error = None;
        state.streams += 1;
    });
    tracing::info!(controller = environment.controller, "configuration stream open");
    loop {
        let response = responses.message().await?.ok_or(StreamError::Closed)?;
        opened();
        let answer = take(environment, sink, response).await;
        requests.send(answer).await.map_err(ended)?;
    }
}

/// Says who we are, what we want, and what we have.
fn first_request(environment: &Environment, running: Option<&Snapshot>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(Node { id: environment.node_id(), cluster: env!("CARGO_PKG_VERSION").to_owned() }),
        type_url: CONFIG_TYPE_URL.to_owned(),
        resource_names_subscribe: vec!["*".to_owned()],
        initial_resource_versions: running.map(|one| one.set().versions().into_iter().collect()).unwrap_or_default(),
        running_seq: running.map_or(0, |one| one.seq()),
        ..DeltaDiscoveryRequest::default()
    }
}

/// Applies one version or refuses it; gives the answer.
async fn take(environment: &Environment, sink: &Sink, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let span = Span::child_of(&response.traceparent, "apply", &environment.node_id(), &response.system_version_info);
    let (nonce, seq) = (response.nonce.clone(), response.system_version_info.clone());
    let running = sink.snapshots.load_full();
    let compiled = tokio::task::spawn_blocking(move || compile(running.as_deref(), &response)).await;
    let mut answer = DeltaDiscoveryRequest {
        type_url: CONFIG_TYPE_URL.to_owned(),
        response_nonce: nonce,
        ..DeltaDiscoveryRequest::default()
    };
    let compiled = compiled.unwrap_or_else(|panic| Err(format!("the proxy cannot compile it: {panic}")));
    match compiled.and_then(|snapshot| swap(sink, snapshot)) {
        Ok(snapshot) => {
            tracing::debug!(seq = snapshot.seq(), digest = %snapshot.digest(), "configuration applied");
            answer.config_digest = snapshot.digest().0.to_vec();
            sink.state.send_modify(|state| {
                state.acked_seq = Some(snapshot.seq());
                state.refused = None;
            });
        }
        Err(reason) => {
            tracing::warn!(seq, reason, "this version of the configuration is refused; the one before it stays");
            span.fail(&reason);
            answer.error_detail = Some(Status { code: Code::InvalidArgument as i32, message: reason.clone() });
            sink.state.send_modify(|state| state.refused = Some(Refused { seq, reason }));
        }
    }
    answer
}

fn compile(running: Option<&Snapshot>, response: &DeltaDiscoveryResponse) -> Result<Snapshot, String> {
    let update = Update::from_response(response).map_err(|error: InvalidResponse| error.to_string())?;
    let mut set = running.map_or_else(ConfigSet::default, |running| running.set().clone());
    set.apply(&update);
    let compiled = match running {
        Some(running) => running.compile_next(set),
        None => Snapshot::compile(set),
    };
    compiled.map_err(|error| error.to_string())
}

/// From here on, every new request is decided by `snapshot`.
fn swap(sink: &Sink, snapshot: Snapshot) -> Result<Arc<Snapshot>, String> {
    let bundle = snapshot.trust_bundle();
    // A bundle from disk was not set, so the first version always sets it.
    let first = sink.state.borrow().acked_seq.is_none();
    let changed = sink.snapshots.load().as_ref().is_none_or(|running| running.trust_bundle() != bundle);
    if !bundle.is_empty() && (first || changed) {
        let trust = Trust::from_pem(bundle).map_err(|error| format!("TrustBundle/trust: pem: {error}"))?;
        sink.tls.set_trust(Arc::new(trust)).map_err(|error| error.to_string())?;
    }
    let snapshot = Arc::new(snapshot);
    sink.snapshots.store(Some(snapshot.clone()));
    sink.applied.send_replace(Some(snapshot.clone()));
    Ok(snapshot)
}
