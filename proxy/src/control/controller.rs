//! A controller for tests: the generated services, over TLS on a loopback socket, driven step by step.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::SpiffeId;
use fsm_proxy_config::ca::certificate_authority_server::{CertificateAuthority, CertificateAuthorityServer};
use fsm_proxy_config::ca::{SignRequest, SignResponse};
use fsm_proxy_config::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use fsm_proxy_config::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::{Response, Status, Streaming};

use crate::tls::testing::TestCa;
use crate::tls::{Identity, peer_identity};

pub const CONTROLLER: &str = "spiffe://cluster.local/ns/fsm-system/sa/fsm-controller";
pub const TOKEN: &str = "a-good-token";

/// How the controller signs.
#[derive(Clone)]
pub struct Signing {
    /// Who a good token belongs to.
    pub identity: SpiffeId,
    pub lifetime: Duration,
}

/// A running controller. Dropping it closes all its connections.
pub struct Controller {
    pub address: SocketAddr,
    streams: mpsc::UnboundedReceiver<Stream>,
    _tasks: JoinSet<()>,
}

/// One proxy's stream.
pub struct Stream {
    pub peer: SpiffeId,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

impl Controller {
    /// Listens on `address` (port 0: any) and signs with `ca`.
    pub async fn start(ca: Arc<TestCa>, signing: Signing, address: SocketAddr) -> Self {
        let server = ca.issue(CONTROLLER, Duration::from_secs(3600));
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&ca, &server)));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (opened, streams) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                connections.spawn(serve(tcp, acceptor.clone(), ca.clone(), signing.clone(), opened.clone()));
            }
        });
        Self { address, streams, _tasks: tasks }
    }

    /// The next stream that a proxy opens.
    pub async fn stream(&mut self) -> Stream {
        self.streams.recv().await.unwrap()
    }
}

impl Stream {
    pub async fn request(&mut self) -> DeltaDiscoveryRequest {
        self.requests.message().await.unwrap().unwrap()
    }

    pub async fn respond(&self, response: DeltaDiscoveryResponse) {
        self.responses.send(Ok(response)).await.unwrap();
    }

    pub async fn refuse(&self, status: Status) {
        self.responses.send(Err(status)).await.unwrap();
    }
}

fn server_config(ca: &TestCa, server: &Identity) -> rustls::ServerConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.trust_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.allow_unauthenticated().build().unwrap();
    let resolver = Arc::new(rustls::sign::SingleCertAndKey::from(server.certified_key()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn serve(
    tcp: tokio::net::TcpStream,
    acceptor: TlsAcceptor,
    ca: Arc<TestCa>,
    signing: Signing,
    opened: mpsc::UnboundedSender<Stream>,
) {
    // A proxy that does not trust us ends here.
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let peer = tls.get_ref().1.peer_certificates().map(|chain| peer_identity(&chain[0]).unwrap());
    let authority = CertificateAuthorityServer::new(Authority { ca, signing });
    let discovery = AggregatedDiscoveryServiceServer::new(Discovery { peer, opened });
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut authority, mut discovery) = (authority.clone(), discovery.clone());
        async move {
            match request.uri().path().starts_with("/fsm.ca.v1.") {
                true => authority.call(request).await,
                false => discovery.call(request).await,
            }
        }
    });
    // The proxy may hang up at any time.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await;
}

struct Authority {
    ca: Arc<TestCa>,
    signing: Signing,
}

#[tonic::async_trait]
impl CertificateAuthority for Authority {
    async fn sign(&self, request: tonic::Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap());
        if token != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::unauthenticated("the token is not valid for audience fsm"));
        }
        let chain_der = self.ca.sign(&request.get_ref().csr_der, &self.signing.identity, self.signing.lifetime);
        Ok(Response::new(SignResponse { chain_der, trust_pem: self.ca.trust_pem() }))
    }
}

struct Discovery {
    peer: Option<SpiffeId>,
    opened: mpsc::UnboundedSender<Stream>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: tonic::Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let peer = self.peer.clone().ok_or_else(|| Status::unauthenticated("no client certificate"))?;
        let (responses, outgoing) = mpsc::channel(4);
        let stream = Stream { peer, requests: request.into_inner(), responses };
        self.opened.send(stream).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
