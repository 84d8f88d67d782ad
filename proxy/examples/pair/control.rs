//! The controller of one proxy: it signs one identity, and sends one configuration.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use fsm_proxy_config::SpiffeId;
use fsm_proxy_config::ca::certificate_authority_server::{CertificateAuthority, CertificateAuthorityServer};
use fsm_proxy_config::ca::{SignRequest, SignResponse};
use fsm_proxy_config::discovery::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use fsm_proxy_config::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::{Request, Response, Status, Streaming};

use crate::mesh::{self, Side};

/// Runs until the input ends. The first lines of the output: its address, and the paths of a token and of the
/// certificate to trust.
pub fn run(side: Side) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(side))
}

async fn serve(side: Side) -> anyhow::Result<()> {
    let directory = PathBuf::from(crate::variable::<String>("CERTS")?);
    let authority = Arc::new(Authority::new(&directory, SpiffeId::from_str(side.identity())?)?);
    let (token, trust) = authority.written(&directory, side)?;
    let responses = mesh::configuration(side, &authority.root_pem)?.as_update().to_response("");
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config()?));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}\n{}\n{}", listener.local_addr()?, token.display(), trust.display());
    std::io::stdout().flush()?;
    let connections = async {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(connection(tcp, acceptor.clone(), Arc::clone(&authority), responses.clone()));
        }
    };
    tokio::select! {
        () = connections => {}
        _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0; 1])) => {}
    }
    Ok(())
}

async fn connection(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    authority: Arc<Authority>,
    configuration: DeltaDiscoveryResponse,
) {
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    let authority = CertificateAuthorityServer::from_arc(authority);
    let discovery = AggregatedDiscoveryServiceServer::new(Discovery(configuration));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (mut authority, mut discovery) = (authority.clone(), discovery.clone());
        async move {
            match request.uri().path().starts_with("/fsm.ca.v1.") {
                true => authority.call(request).await,
                false => discovery.call(request).await,
            }
        }
    });
    // The proxy hangs up after each signature.
    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(tls), service).await;
}

/// A certificate for what connects as the proxy of `side`, and its key.
pub fn client_certificate(
    directory: &Path,
    side: Side,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let identity = SpiffeId::from_str(side.identity())?;
    let (authority, key) = (Authority::new(directory, identity.clone())?, KeyPair::generate()?);
    let certificate = leaf(&identity)?.signed_by(&key, &authority.issuer)?;
    Ok((vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
}

/// Signs for whoever asks: it listens on the loopback address, for one measurement.
struct Authority {
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
    identity: SpiffeId,
}

impl Authority {
    fn new(directory: &Path, identity: SpiffeId) -> anyhow::Result<Self> {
        let key = shared_key(directory)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "pair");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root_pem = params.self_signed(&key)?.pem();
        Ok(Self { root_pem, issuer: Issuer::new(params, key), identity })
    }

    /// The paths of a token and of the root certificate.
    fn written(&self, directory: &Path, side: Side) -> anyhow::Result<(PathBuf, PathBuf)> {
        let token = directory.join(format!("{}.token", side.as_str()));
        let trust = directory.join(format!("{}-root.pem", side.as_str()));
        std::fs::write(&token, "measurement")?;
        std::fs::write(&trust, &self.root_pem)?;
        Ok((token, trust))
    }

    fn server_config(&self) -> anyhow::Result<rustls::ServerConfig> {
        let key = KeyPair::generate()?;
        let certificate = leaf(&SpiffeId::from_str(mesh::CONTROLLER)?)?.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn sign(&self, csr_der: &[u8]) -> anyhow::Result<Vec<u8>> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))?;
        Ok(leaf(&self.identity)?.signed_by(&request.public_key, &self.issuer)?.der().to_vec())
    }
}

/// The two controllers sign with one key: whoever comes first makes it.
fn shared_key(directory: &Path) -> anyhow::Result<KeyPair> {
    let (path, own) = (directory.join("pair-ca.key"), directory.join(format!("pair-ca.{}", std::process::id())));
    std::fs::write(&own, KeyPair::generate()?.serialize_pem()).with_context(|| own.display().to_string())?;
    // A link is made whole or not at all; if it is there already, that one counts.
    let _ = std::fs::hard_link(&own, &path);
    std::fs::remove_file(&own)?;
    Ok(KeyPair::from_pem(&std::fs::read_to_string(path)?)?)
}

fn leaf(spiffe: &SpiffeId) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(spiffe.to_string().try_into()?)];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(24 * 3600)).into();
    Ok(params)
}

#[tonic::async_trait]
impl CertificateAuthority for Authority {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let signed = Self::sign(self, &request.get_ref().csr_der)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(SignResponse { chain_der: vec![signed], trust_pem: self.root_pem.clone() }))
    }
}

struct Discovery(DeltaDiscoveryResponse);

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, outgoing) = mpsc::channel(1);
        let (mut requests, configuration) = (request.into_inner(), self.0.clone());
        tokio::spawn(async move {
            let _ = responses.send(Ok(configuration)).await;
            while let Ok(Some(answer)) = requests.message().await {
                if let Some(refused) = answer.error_detail {
                    eprintln!("the configuration is refused: {}", refused.message);
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
