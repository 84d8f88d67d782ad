//! Calling a webhook: HTTPS to a URL, or to a ready endpoint of a Service.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::matching::Hook;
use crate::api::object::{items, text};
use crate::api::server::Server;

const LARGEST_ANSWER: usize = 3 * 1024 * 1024;

/// Why a webhook couldn't be asked.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("Post {url:?}: context deadline exceeded")]
    Timeout { url: String },
    #[error("Post {url:?}: {source}")]
    Connect { url: String, source: std::io::Error },
    #[error("Post {url:?}: {source}")]
    Http { url: String, source: hyper::Error },
    #[error("{0}")]
    Destination(String),
    #[error("the caBundle of the webhook is no PEM certificate: {0}")]
    Trust(String),
    #[error("{0}")]
    Answer(String),
}

/// Sends a review and gives the answer's JSON.
pub async fn post(server: &Arc<Server>, hook: &Hook, review: &Value) -> Result<Value, CallError> {
    let destination = Destination::of(hook)?;
    let url = format!("https://{}{}", destination.authority, destination.path);
    let timeout = Duration::from_secs(hook.timeout_seconds);
    let called = tokio::time::timeout(timeout, exchange(server, hook, &destination, &url, review)).await;
    called.unwrap_or(Err(CallError::Timeout { url }))
}

struct Destination {
    /// Host and port, as the `Host` header has them.
    authority: String,
    /// The name in the webhook's certificate.
    host: String,
    port: u16,
    /// Path and query.
    path: String,
    service: Option<(String, String)>,
}

impl Destination {
    fn of(hook: &Hook) -> Result<Self, CallError> {
        let timeout = hook.timeout_seconds;
        let service = &hook.client["service"];
        if service.is_object() {
            let (namespace, name) = (text(service, &["namespace"]).to_owned(), text(service, &["name"]).to_owned());
            let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
            let host = format!("{name}.{namespace}.svc");
            let path = text(service, &["path"]);
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
            let path = format!("{path}?timeout={timeout}s");
            return Ok(Self {
                authority: format!("{host}:{port}"),
                host,
                port,
                path,
                service: Some((namespace, name)),
            });
        }
        let url = text(&hook.client, &["url"]);
        let refuse = || CallError::Destination(format!("the webhook's url {url:?} is no URL"));
        let uri: Uri = url.parse().map_err(|_| refuse())?;
        let authority = uri.authority().ok_or_else(refuse)?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(443),
            authority: authority.to_string(),
            path: format!("{}?timeout={timeout}s", uri.path()),
            service: None,
        })
    }

    async fn connect(&self, server: &Server) -> std::io::Result<TcpStream> {
        match &self.service {
            Some((namespace, name)) => {
                let address = endpoint(server, namespace, name, self.port).map_err(std::io::Error::other)?;
                server.dialer.dial(address).await
            }
            None => TcpStream::connect((self.host.as_str(), self.port)).await,
        }
    }
}

/// The address of a ready endpoint behind a Service's port. The error says what is missing.
fn endpoint(server: &Server, namespace: &str, name: &str, port: u16) -> Result<SocketAddr, String> {
    let service = server
        .find("", "services", namespace, name)
        .ok_or_else(|| format!("service {name:?} not found in namespace {namespace:?}"))?;
    let ports = items(&service.value, &["spec", "ports"]);
    let port_name = ports
        .iter()
        .find(|p| p["port"] == port)
        .map(|p| text(p, &["name"]).to_owned())
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    for slice in server.all("discovery.k8s.io", "endpointslices", Some(namespace)) {
        if text(&slice.value, &["metadata", "labels", "kubernetes.io/service-name"]) != name {
            continue;
        }
        let number = items(&slice.value, &["ports"])
            .iter()
            .find(|p| text(p, &["name"]) == port_name)
            .and_then(|p| p["port"].as_u64())
            .and_then(|p| u16::try_from(p).ok());
        let ready = items(&slice.value, &["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false);
        let addresses = ready.flat_map(|e| items(e, &["addresses"])).filter_map(|a| a.as_str()?.parse::<IpAddr>().ok());
        if let (Some(number), Some(address)) = (number, addresses.into_iter().next()) {
            return Ok(SocketAddr::new(address, number));
        }
    }
    Err(format!("no endpoints available for service {name:?}"))
}

async fn exchange(
    server: &Arc<Server>,
    hook: &Hook,
    destination: &Destination,
    url: &str,
    review: &Value,
) -> Result<Value, CallError> {
    let connect = |source| CallError::Connect { url: url.into(), source };
    let http = |source| CallError::Http { url: url.into(), source };
    let tls = trust(server, hook)?;
    let name = ServerName::try_from(destination.host.clone()).map_err(|_| {
        CallError::Destination(format!("the webhook's host {:?} is no name or address", destination.host))
    })?;
    let stream = destination.connect(server).await.map_err(connect)?;
    let stream = tls.connect(name, stream).await.map_err(connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let connection = tokio::spawn(connection);
    let request = Request::post(&destination.path)
        .header("Host", &destination.authority)
        .header("User-Agent", "kube-apiserver-admission")
        .header("Accept", "application/json, */*")
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|e| CallError::Destination(e.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let code = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|e| CallError::Answer(format!("the answer can't be read: {e}")))?.to_bytes();
        read(code, &body)
    }
    .await;
    connection.abort();
    answer
}

fn read(code: http::StatusCode, body: &[u8]) -> Result<Value, CallError> {
    if code == http::StatusCode::NOT_FOUND {
        return Err(CallError::Answer("the server could not find the requested resource".into()));
    }
    if !code.is_success() {
        let start: String = String::from_utf8_lossy(body).chars().take(200).collect();
        return Err(CallError::Answer(format!(
            "an error on the server ({start:?}, HTTP status {}) has prevented the request from succeeding",
            code.as_u16()
        )));
    }
    if body.is_empty() {
        return Err(CallError::Answer(format!("0-length response with status code: {}", code.as_u16())));
    }
    serde_json::from_slice(body)
        .map_err(|e| CallError::Answer(format!("couldn't get version/kind; json parse error: {e}")))
}

/// TLS that trusts the webhook's `caBundle`; without one, the cluster's own CA.
fn trust(server: &Server, hook: &Hook) -> Result<TlsConnector, CallError> {
    let refuse = |error: &dyn std::fmt::Display| CallError::Trust(error.to_string());
    let bundle = text(&hook.client, &["caBundle"]);
    let pem = if bundle.is_empty() {
        server.authority.certificate_pem.clone().into_bytes()
    } else {
        STANDARD.decode(bundle).map_err(|e| refuse(&e))?
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|e| refuse(&e))?).map_err(|e| refuse(&e))?;
    }
    if roots.is_empty() {
        return Err(CallError::Trust("it holds no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| refuse(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
