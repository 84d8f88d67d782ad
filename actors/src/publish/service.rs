//! The gRPC service that proxies connect to: checks who they are, and gives each a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Addr};
use actix_rt::ArbiterHandle;
use fsm_proxy_config::SpiffeId;
use fsm_proxy_config::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use fsm_proxy_config::discovery::{CONFIG_TYPE_URL, DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use fsm_store::TraceContext;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::actor::{AccountOf, PublisherActor};
use super::session::{FromProxy, Session, StreamEnded};
use crate::FactSink;
use crate::catalog::view::Account;
use crate::catalog::{Catalog, ObjectName};
use crate::fact::{Fact, ProxyFact, ProxyPhase};

/// Who is at the other end of a connection, from its verified certificate: an extension of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity(pub SpiffeId);

/// The service. Clones serve the same mesh.
#[derive(Clone)]
pub struct StreamService {
    publisher: Addr<PublisherActor>,
    sessions: ArbiterHandle,
    facts: FactSink,
    published: watch::Receiver<Catalog>,
    /// How long to wait for a proxy's pod to become known.
    patience: Duration,
    streams: Arc<AtomicU64>,
}

impl StreamService {
    pub(crate) fn new(
        publisher: Addr<PublisherActor>,
        sessions: ArbiterHandle,
        facts: FactSink,
        published: watch::Receiver<Catalog>,
        patience: Duration,
    ) -> Self {
        Self { publisher, sessions, facts, published, patience, streams: Arc::default() }
    }

    /// The service account of the proxy's pod, once it is known.
    async fn account(&self, proxy: &ObjectName) -> Result<Account, Status> {
        let mut published = self.published.clone();
        let known = async {
            loop {
                published.borrow_and_update();
                match self.publisher.send(AccountOf(proxy.clone())).await {
                    Ok(Some(account)) => return Ok(account),
                    Ok(None) => {}
                    Err(_) => return Err(stopping()),
                }
                if published.changed().await.is_err() {
                    return Err(stopping());
                }
            }
        };
        tokio::time::timeout(self.patience, known).await.unwrap_or_else(|_| {
            Err(Status::permission_denied(format!(
                "no pod {proxy} with a sidecar is known in this mesh: check that its namespace has the label \
                 flomesh.io/monitored-by and that the pod was injected"
            )))
        })
    }

    /// Whether the pod's service account is the one in the certificate.
    fn check(&self, proxy: &ObjectName, account: &Account, peer: &SpiffeId) -> Result<(), Status> {
        let expected = self.published.borrow().mesh().identity(account);
        if expected.as_ref() == Some(peer) {
            return Ok(());
        }
        let expected = expected.map(|identity| identity.to_string()).unwrap_or_default();
        Err(Status::permission_denied(format!("pod {proxy} is {expected}, but the certificate says {peer}")))
    }

    async fn open(&self, peer: SpiffeId, first: DeltaDiscoveryRequest) -> Result<(Addr<Session>, Responses), Status> {
        if !matches!(first.type_url.as_str(), "" | CONFIG_TYPE_URL) {
            return Err(Status::invalid_argument(format!("type_url must be {CONFIG_TYPE_URL}")));
        }
        let node = first.node.unwrap_or_default();
        let proxy: ObjectName =
            node.id.parse().ok().filter(|name: &ObjectName| !name.namespace().is_empty()).ok_or_else(|| {
                Status::invalid_argument(format!("node.id is \"{}\", expected <namespace>/<pod>", node.id))
            })?;
        let account = self.account(&proxy).await?;
        self.check(&proxy, &account, &peer)?;
        // Distinct from every stream of earlier controllers: they ended before the seq at which this one began.
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let instance = format!("{}-{number}", self.published.borrow().seq());
        let connected = Fact::Proxy(ProxyFact {
            phase: ProxyPhase::Connected,
            proxy: proxy.clone(),
            identity: peer.clone(),
            instance: instance.clone(),
            version: node.cluster,
            running_seq: first.running_seq,
        });
        self.facts
            .append(&connected, TraceContext::default())
            .await
            .map_err(|error| Status::unavailable(format!("the connection could not be recorded: {error}")))?;
        let (out, responses) = mpsc::channel(4);
        let session = Session {
            proxy,
            account,
            identity: peer,
            instance,
            held: first.initial_resource_versions.into_iter().collect(),
            running_seq: first.running_seq,
            out,
            facts: self.facts.clone(),
            publisher: self.publisher.clone(),
            delivery: Default::default(),
            under_way: None,
            resent: false,
        };
        let (tell, told) = oneshot::channel();
        self.sessions.spawn_fn(move || {
            // Nobody waits any more if the call was cancelled; the session then ends with its channel.
            let _ = tell.send(session.start());
        });
        let session = told.await.map_err(|_| stopping())?;
        Ok((session, ReceiverStream::new(responses)))
    }
}

type Responses = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

fn stopping() -> Status {
    Status::unavailable("the controller is stopping")
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for StreamService {
    type DeltaAggregatedResourcesStream = Responses;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let peer = request.extensions().get::<PeerIdentity>().cloned().ok_or_else(|| {
            Status::unauthenticated(
                "a workload certificate of this mesh is required: get one from CertificateAuthority.Sign",
            )
        })?;
        let mut requests = request.into_inner();
        let first = requests
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the stream ended before its first request"))?;
        let (session, responses) = self.open(peer.0, first).await?;
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                session.do_send(FromProxy(request));
            }
            session.do_send(StreamEnded);
        });
        Ok(Response::new(responses))
    }
}
