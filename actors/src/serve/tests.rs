use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use fsm_proxy_config::SpiffeId;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ca::{Authority, AuthorityPem, ServerCertificate, Signer};
use crate::metrics::Metrics;

/// Answers with the peer's identity.
#[derive(Clone)]
struct WhoAmI;

impl Handler<Body> for WhoAmI {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let info = request.extensions().get::<ConnectionInfo>().unwrap();
        let identity = info.certificates.first().and_then(peer_identity);
        let identity = identity.map_or("nobody".to_owned(), |identity| identity.to_string());
        text(StatusCode::OK, "text/plain", identity)
    }
}

fn signer() -> Signer {
    Signer::new(Authority::from_pem(&AuthorityPem::generate(SystemTime::now()).unwrap()).unwrap())
}

/// A client of `mesh` that has a certificate of `own`, or none.
fn client(mesh: &Signer, own: Option<&Signer>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(mesh.authority().root().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(signer) => {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let csr = CertificateParams::default().serialize_request(&key).unwrap();
            let buyer: SpiffeId = "spiffe://cluster.local/ns/shop/sa/buyer".parse().unwrap();
            let issued = signer.sign(csr.der(), &buyer, SystemTime::now()).unwrap();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            builder.with_client_auth_cert(issued.chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn ask(address: SocketAddr, config: ClientConfig) -> Result<String, Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("fsm-controller.fsm-system.svc")?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("https://fsm-controller/").body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    drop(sender);
    connection.await??;
    Ok(String::from_utf8(body.to_vec())?)
}

#[tokio::test]
async fn a_proxys_identity_is_its_certificate_and_only_one_of_this_mesh() {
    let mesh = signer();
    let certificate = ServerCertificate::new(mesh.clone(), "cluster.local", "fsm-system", SystemTime::now()).unwrap();
    let tls = tls_for_proxies(certificate, mesh.authority().root()).unwrap();
    let bound = bind("127.0.0.1:0".parse().unwrap(), "a test", "test-addr").await.unwrap();
    let address = bound.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(bound.serve(Protocol::Tls(tls), WhoAmI, stop.clone()));

    assert_eq!(ask(address, client(&mesh, None)).await.unwrap(), "nobody");
    let known = ask(address, client(&mesh, Some(&mesh))).await.unwrap();
    assert_eq!(known, "spiffe://cluster.local/ns/shop/sa/buyer");
    let stranger = signer();
    assert!(ask(address, client(&mesh, Some(&stranger))).await.is_err(), "a certificate of another mesh");
    assert!(ask(address, client(&stranger, None)).await.is_err(), "the client trusts another mesh");

    stop.cancel();
    server.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_flag_that_changes_it() {
    let first = bind("127.0.0.1:0".parse().unwrap(), "a test", "test-addr").await.unwrap();
    let address = first.local_addr().unwrap();
    let error = bind(address, "the proxies' stream", "stream-addr").await.unwrap_err().to_string();
    for part in [&address.port().to_string(), "the proxies' stream", "in use", "--stream-addr"] {
        assert!(error.contains(part), "{error}");
    }
}

async fn health(readiness: &Readiness, path: &str) -> (StatusCode, String) {
    let service = HealthService::new(readiness.clone(), Arc::new(Metrics::default()));
    let response = service.answer(&Method::GET, path);
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn ready_means_that_nothing_is_waited_for() {
    let readiness = Readiness::default();
    readiness.expect("watch Pod");
    readiness.expect("webhooks");
    let (status, text) = health(&readiness, "/health/ready").await;
    assert_eq!(
        (status, text.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: waiting for watch Pod, webhooks\n")
    );
    readiness.met("webhooks");
    assert!(health(&readiness, "/health/ready").await.1.contains("waiting for watch Pod\n"));
    readiness.met("watch Pod");
    assert_eq!(health(&readiness, "/health/ready").await.0, StatusCode::OK);
    readiness.lost("webhooks");
    assert_eq!(health(&readiness, "/health/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health(&readiness, "/health/alive").await.0, StatusCode::OK);
    assert!(health(&readiness, "/metrics").await.1.contains("# TYPE fsm_propagation_seconds histogram\n"));
    assert!(health(&readiness, "/version").await.1.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(health(&readiness, "/").await.0, StatusCode::NOT_FOUND);
}
