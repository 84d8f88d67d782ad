//! The whole control plane over a real log, with proxies that speak the real protocol, without a network between them.

mod crashes;
mod streams;
mod traces;

use bytes::Bytes;
use fsm_proxy_config::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use fsm_proxy_config::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use fsm_proxy_config::discovery::{CONFIG_TYPE_URL, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use fsm_proxy_config::{Digest, Entry, Update};
use fsm_store::{Record, SledLog, TraceContext};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::*;
use crate::fact::{Ack, Fact, Nack, ProxyPhase};
use crate::fixture::*;
use crate::publish::PeerIdentity;

const BUYER: &str = "bookbuyer/bookbuyer-0";

/// A control plane on a log in a directory of its own.
struct Mesh {
    log: Arc<dyn EventLog>,
    plane: ControlPlane,
    _directory: tempfile::TempDir,
}

impl Mesh {
    /// With the history of the bookstore.
    async fn bookstore(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log: Arc<dyn EventLog> = Arc::new(
            SledLog::open(directory.path(), fsm_store::Options { create: true, ..Default::default() }).unwrap(),
        );
        let history = History::bookstore();
        log.append(history.0.into_iter().map(|record| record.entry).collect()).await.unwrap();
        let plane = ControlPlane::start(log.clone(), options).await.unwrap();
        Self { log, plane, _directory: directory }
    }

    async fn apply(&self, object: serde_json::Value) -> Seq {
        let trace = TraceContext { trace_id: [7; 16], span_id: [9; 8], flags: 1 };
        let seq = self.plane.facts().append(&applied(object), trace).await.unwrap();
        self.plane.reached(seq).await;
        seq
    }

    async fn records(&self) -> Vec<Record> {
        let batches: Vec<_> = self.log.read(Seq::ZERO).collect().await;
        batches.into_iter().flat_map(|batch| batch.unwrap().to_vec()).collect()
    }

    /// Waits for a fact after `from` that `pick` takes.
    async fn fact<T>(&self, from: Seq, pick: impl Fn(Fact) -> Option<T>) -> T {
        let mut batches = self.log.tail(from.next());
        while let Some(batch) = batches.next().await {
            for record in batch.unwrap().iter() {
                if let Some(found) = pick(Fact::parse(&record.entry).unwrap()) {
                    return found;
                }
            }
        }
        panic!("the log ended")
    }

    /// Waits until the version of this response is acknowledged.
    async fn acked(&self, response: &DeltaDiscoveryResponse) -> Ack {
        self.fact(Seq::ZERO, |fact| is_ack(fact).filter(|ack| ack.seq.to_string() == response.nonce)).await
    }

    /// What a computation from the log alone says.
    async fn recomputed(&self) -> Core {
        let mut core = Core::default();
        core.apply(&self.records().await);
        core
    }

    async fn assert_replays(&self, versions: u64) {
        let report = crate::replay::verify(&self.records().await);
        assert!(report.identical(), "{:?}", report.differences);
        assert!(report.versions_checked >= versions, "{report:?}");
    }
}

/// A proxy at the other end of a stream.
struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    config: ConfigSet,
}

impl Proxy {
    async fn open(mesh: &Mesh, pod: &str, account: Option<&str>, config: ConfigSet) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(8);
        let held = config.resources.iter().map(|(name, entry)| (name.to_string(), entry.version.to_string()));
        let first = DeltaDiscoveryRequest {
            node: Some(Node { id: pod.to_owned(), cluster: "test".to_owned() }),
            type_url: CONFIG_TYPE_URL.to_owned(),
            initial_resource_versions: held.collect(),
            running_seq: config.seq,
            ..Default::default()
        };
        requests.send(first).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(stream));
        if let Some(account) = account {
            request.extensions_mut().insert(PeerIdentity(identity(account)));
        }
        let server = AggregatedDiscoveryServiceServer::new(mesh.plane.stream_service());
        let mut client = AggregatedDiscoveryServiceClient::new(server);
        let responses = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(Self { requests, responses, config })
    }

    async fn buyer(mesh: &Mesh) -> Self {
        Self::open(mesh, BUYER, Some("bookbuyer/bookbuyer"), ConfigSet::default()).await.unwrap()
    }

    /// Takes the next version, without an answer.
    async fn take(&mut self) -> DeltaDiscoveryResponse {
        let response = self.responses.message().await.unwrap().unwrap();
        let mut update = Update { seq: response.nonce.parse().unwrap(), ..Update::default() };
        for resource in &response.resources {
            let bytes = Bytes::from(resource.resource.clone().unwrap().value);
            let entry = Entry { version: resource.version.parse().unwrap(), bytes };
            update.changed.insert(resource.name.parse().unwrap(), entry);
        }
        update.removed = response.removed_resources.iter().map(|name| name.parse().unwrap()).collect();
        self.config.apply(&update);
        response
    }

    async fn ack_with(&self, nonce: &str, digest: Digest) {
        let answer = DeltaDiscoveryRequest {
            response_nonce: nonce.to_owned(),
            config_digest: digest.0.to_vec(),
            ..Default::default()
        };
        self.requests.send(answer).await.unwrap();
    }

    /// Takes the next version and acknowledges it.
    async fn run_next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.take().await;
        self.ack_with(&response.nonce, self.config.digest()).await;
        response
    }
}

fn is_ack(fact: Fact) -> Option<Ack> {
    match fact {
        Fact::Ack(ack) => Some(ack),
        _ => None,
    }
}

fn is_nack(fact: Fact) -> Option<Nack> {
    match fact {
        Fact::Nack(nack) => Some(nack),
        _ => None,
    }
}
