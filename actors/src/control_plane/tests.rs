//! The whole control plane over a real log, with proxies that speak the real protocol, without a network between them.

use std::collections::BTreeMap;

use bytes::Bytes;
use fsm_proxy_config::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use fsm_proxy_config::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use fsm_proxy_config::discovery::{
    CONFIG_TYPE_URL, DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as Detail,
};
use fsm_proxy_config::{Digest, Entry, Update};
use fsm_store::{Record, SledLog, TraceContext};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::*;
use crate::fact::{Ack, Fact, Nack, ProxyPhase};
use crate::fixture::*;
use crate::publish::PeerIdentity;
use crate::shell::poison;

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

#[tokio::test]
async fn a_proxy_follows_the_mesh_and_its_acknowledgements_are_facts() {
    let mesh = Mesh::bookstore(Options { digest_every: 1, ..Options::default() }).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.run_next().await;
    assert_eq!(first.removed_resources, Vec::<String>::new());
    let ack = mesh.acked(&first).await;
    assert_eq!(ack.proxy, name(BUYER));
    assert_eq!(ack.digest, buyer.config.digest());

    let seq = mesh.apply(split(50, 50)).await;
    let next = buyer.run_next().await;
    assert_eq!(next.resources.len(), 1);
    assert_eq!(next.resources[0].name, "Split/bookstore/bookstore-split");
    assert_eq!(next.resources[0].version, seq.to_string());
    assert_eq!(next.traceparent, format!("00-{}-{}-01", "07".repeat(16), "09".repeat(8)));
    mesh.acked(&next).await;

    let catalog = mesh.plane.reached(mesh.log.last()).await;
    let status = catalog.proxies().get(&name(BUYER)).unwrap();
    assert!(status.is_connected());
    assert_eq!(status.acked.map(|(_, digest)| digest), Some(buyer.config.digest()));
    mesh.assert_replays(2).await;

    let before = mesh.log.last();
    drop(buyer);
    mesh.fact(before, |fact| match fact {
        Fact::Proxy(fact) if fact.phase == ProxyPhase::Disconnected => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_slow_proxy_gets_the_newest_state_next() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.take().await;
    for weight in 1..=5 {
        mesh.apply(split(weight, 100)).await;
    }
    let last = mesh.apply(service("bookstore", "bookstore", "10.96.0.77")).await;
    // The first version is still on its way; what came meanwhile comes as one.
    buyer.ack_with(&first.nonce, buyer.config.digest()).await;
    let next = buyer.run_next().await;
    assert_eq!(next.nonce, last.to_string());
    let changed: Vec<&str> = next.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(changed, ["Service/bookstore/bookstore", "Split/bookstore/bookstore-split"]);
    mesh.acked(&next).await;
    assert_eq!(buyer.config.resources, mesh.recomputed().await.config_of(&name(BUYER)).unwrap().resources);
    mesh.assert_replays(2).await;
}

#[tokio::test]
async fn a_reconnect_brings_only_what_changed_meanwhile() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.run_next().await;
    mesh.acked(&first).await;
    let config = buyer.config.clone();
    drop(buyer);
    mesh.apply(split(1, 1)).await;
    let mut buyer = Proxy::open(&mesh, BUYER, Some("bookbuyer/bookbuyer"), config).await.unwrap();
    let first = buyer.run_next().await;
    assert_eq!(first.resources.len(), 1);
    assert_eq!(first.resources[0].name, "Split/bookstore/bookstore-split");
    mesh.acked(&first).await;
    mesh.assert_replays(2).await;
}

#[tokio::test]
async fn a_proxy_that_was_out_of_the_mesh_begins_anew() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    buyer.run_next().await;
    mesh.fact(Seq::ZERO, is_ack).await;
    let mut outside = namespace_of_mesh("bookbuyer");
    outside["metadata"]["labels"] = serde_json::json!({});
    mesh.apply(outside).await;
    let gone = Fact::deleted("split.smi-spec.io/v1alpha4/TrafficSplit", &split(1, 1));
    mesh.plane.facts().append(&gone, TraceContext::default()).await.unwrap();
    mesh.apply(namespace_of_mesh("bookbuyer")).await;
    let status = buyer.responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    let mut buyer = Proxy::open(&mesh, BUYER, Some("bookbuyer/bookbuyer"), buyer.config.clone()).await.unwrap();
    let first = buyer.run_next().await;
    assert_eq!(first.removed_resources, ["Split/bookstore/bookstore-split"]);
    mesh.acked(&first).await;
    mesh.assert_replays(2).await;
}

#[tokio::test]
async fn a_configuration_from_another_history_is_replaced() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut config = mesh.plane.config_of(&name(BUYER)).await.unwrap();
    // The same names and versions, but other content.
    config.resources.values_mut().for_each(|entry| entry.bytes = Bytes::from_static(b"other"));
    config.seq = 1;
    let before = mesh.log.last();
    let mut buyer = Proxy::open(&mesh, BUYER, Some("bookbuyer/bookbuyer"), config).await.unwrap();
    assert!(buyer.run_next().await.resources.is_empty());
    let nack = mesh.fact(before, is_nack).await;
    assert!(nack.error.contains("sent again in full"), "{}", nack.error);
    let full = buyer.run_next().await;
    mesh.acked(&full).await;
    assert_eq!(buyer.config.resources, mesh.plane.config_of(&name(BUYER)).await.unwrap().resources);
    mesh.assert_replays(1).await;
}

#[tokio::test]
async fn a_refusal_is_a_fact_and_the_next_change_brings_all_of_it() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.run_next().await;
    mesh.acked(&first).await;
    let before = mesh.apply(split(2, 1)).await;
    let old = buyer.config.clone();
    let refused = buyer.take().await;
    let error_detail = Some(Detail { code: 3, message: "does not compile".to_owned() });
    let nack = DeltaDiscoveryRequest { response_nonce: refused.nonce, error_detail, ..Default::default() };
    buyer.requests.send(nack).await.unwrap();
    buyer.config = old;
    assert_eq!(mesh.fact(before, is_nack).await.error, "does not compile");
    mesh.apply(service("bookstore", "bookstore", "10.96.0.78")).await;
    assert_eq!(buyer.run_next().await.resources.len(), 2);
    assert_eq!(buyer.config.resources, mesh.plane.config_of(&name(BUYER)).await.unwrap().resources);
}

#[tokio::test]
async fn only_the_pods_own_identity_is_told_what_is_for_it() {
    let mesh = Mesh::bookstore(Options { patience: Duration::from_millis(50), ..Options::default() }).await;
    let refused = |pod: &'static str, account: Option<&'static str>| {
        let mesh = &mesh;
        async move { Proxy::open(mesh, pod, account, ConfigSet::default()).await.err().unwrap() }
    };
    assert_eq!(refused(BUYER, None).await.code(), Code::Unauthenticated);
    let status = refused(BUYER, Some("bookthief/bookthief")).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("the certificate says spiffe://cluster.local/ns/bookthief/sa/bookthief"),
        "{status:?}"
    );
    let status = refused("bookbuyer/nobody", Some("bookbuyer/bookbuyer")).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("no pod bookbuyer/nobody"), "{status:?}");
    assert_eq!(refused("bookbuyer", Some("bookbuyer/bookbuyer")).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_proxy_may_come_before_its_pod_is_known() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let open = Proxy::open(&mesh, "bookbuyer/late", Some("bookbuyer/late"), ConfigSet::default());
    let (opened, _) = tokio::join!(open, mesh.apply(pod("bookbuyer", "late", "late", "10.0.0.9")));
    assert!(opened.unwrap().take().await.resources.iter().any(|resource| resource.name == "Workload/workload"));
}

#[tokio::test]
async fn a_controller_that_ends_records_the_end_of_its_streams() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    buyer.run_next().await;
    mesh.fact(Seq::ZERO, is_ack).await;
    let from = mesh.log.last();
    mesh.plane.stop();
    let mut batches = mesh.log.tail(from.next());
    let ended = Fact::parse(&batches.next().await.unwrap().unwrap()[0].entry).unwrap();
    assert!(matches!(ended, Fact::Proxy(fact) if fact.phase == ProxyPhase::Disconnected));
}

#[tokio::test]
async fn actors_that_crash_come_back_as_they_were() {
    for actor in crate::core::CONCERNS.into_iter().chain([crate::core::CATALOG, crate::core::PUBLISHER]) {
        let mesh = Mesh::bookstore(Options { digest_every: 1, ..Options::default() }).await;
        let mut buyer = Proxy::buyer(&mesh).await;
        buyer.run_next().await;
        // Connected, acknowledged: from here on this test alone appends, but for digests.
        mesh.fact(Seq::ZERO, is_ack).await;
        let from = mesh.log.last();
        for seq in from.0 + 1..from.0 + 4 {
            poison::arm(&mesh.log, actor, Seq(seq), 1);
        }
        let last = mesh.apply(split(3, 4)).await;
        let last = mesh.apply(service("bookstore", "bookstore", "10.96.0.79")).await.max(last);
        let mut newest = None;
        while buyer.config.seq < last.0 {
            newest = Some(buyer.run_next().await);
        }
        mesh.acked(&newest.unwrap()).await;
        assert!(mesh.plane.counters().restarts()[actor] >= 2, "{actor}: {:?}", mesh.plane.counters().restarts());
        let recomputed = mesh.recomputed().await.config_of(&name(BUYER)).unwrap();
        assert_eq!(buyer.config.resources, recomputed.resources, "{actor}");
        mesh.assert_replays(2).await;
    }
}

#[tokio::test]
async fn a_record_that_always_makes_an_actor_panic_does_not_stop_the_mesh() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let bad = mesh.log.last().next();
    poison::arm(&mesh.log, "splits", bad, u32::MAX);
    assert_eq!(mesh.apply(split(3, 4)).await, bad);
    let before = mesh.plane.config_of(&name(BUYER)).await.unwrap();
    let good = mesh.apply(split(5, 6)).await;
    let after = mesh.plane.config_of(&name(BUYER)).await.unwrap();
    let split = "Split/bookstore/bookstore-split".parse().unwrap();
    assert!(before.resources[&split].version < bad.0);
    assert_eq!(after.resources[&split].version, good.0);
    assert_eq!(mesh.plane.counters().restarts(), BTreeMap::from([("splits", 2)]));
}

#[tokio::test]
async fn an_actor_that_ends_for_good_is_noticed() {
    let mesh = Mesh::bookstore(Options::default()).await;
    poison::arm(&mesh.log, "finish", mesh.log.last().next(), 1);
    mesh.plane.facts().append(&applied(split(3, 4)), TraceContext::default()).await.unwrap();
    assert_eq!(mesh.plane.failed().await, "the actor \"catalog\" ended");
}

#[tokio::test]
async fn another_controller_on_the_same_log_goes_on_where_the_first_one_ended() {
    let mesh = Mesh::bookstore(Options::default()).await;
    mesh.apply(split(3, 4)).await;
    let before = mesh.plane.config_of(&name(BUYER)).await.unwrap();
    let again = ControlPlane::start(mesh.log.clone(), Options::default()).await.unwrap();
    assert_eq!(again.config_of(&name(BUYER)).await.unwrap(), before);
    let injection = again.injection();
    assert!(injection.borrow().monitors("bookstore"));
}

/// Keeps what is exported.
#[derive(Clone, Debug, Default)]
struct Exported(Arc<std::sync::Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

#[tokio::test]
async fn a_change_is_one_trace_from_its_commit_to_the_acknowledgement() {
    let exported = Exported::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
    opentelemetry::global::set_tracer_provider(provider);
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.run_next().await;
    mesh.acked(&first).await;
    let trace = crate::trace::Change::begin("test", "a split").context;
    mesh.plane.facts().append(&applied(split(9, 1)), trace).await.unwrap();
    let next = buyer.run_next().await;
    mesh.acked(&next).await;
    let mut of_change = exported.0.lock().unwrap().clone();
    of_change.retain(|span| span.span_context.trace_id().to_bytes() == trace.trace_id);
    let mut names: Vec<&str> = of_change.iter().map(|span| &*span.name).collect();
    names.sort();
    assert_eq!(
        names,
        ["append", "catalog", "certs", "change", "deliver", "injection", "publisher", "routes", "splits"]
    );
    for span in of_change {
        let parent = if span.name == "change" { [0; 8] } else { trace.span_id };
        assert_eq!(span.parent_span_id.to_bytes(), parent, "{}", span.name);
        assert!(span.start_time <= span.end_time, "{}", span.name);
    }
}
