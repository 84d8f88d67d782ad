//! TLS of the controller, and who its peers are.

use std::sync::Arc;

use fsm_proxy_config::SpiffeId;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use crate::ca::{CaError, ServerCertificate};

/// Proxies are ours: nothing older than TLS 1.3.
const PROXY_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// TLS of the proxies' port. A client certificate is not required (a proxy that has none yet asks for its first one here),
/// but if there is one, it must be of this mesh.
pub fn tls_for_proxies(
    certificate: Arc<ServerCertificate>,
    root: &CertificateDer<'static>,
) -> Result<Arc<ServerConfig>, CaError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| CaError::Stored { field: "ca.crt", reason: error.to_string() })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(PROXY_VERSIONS)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// TLS of the webhooks, which the API server calls.
pub fn tls_for_webhooks(certificate: Arc<ServerCertificate>) -> Result<Arc<ServerConfig>, CaError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The workload identity in a verified certificate: its one URI SAN. `None` if it has none, several, or another form.
pub fn peer_identity(leaf: &CertificateDer<'_>) -> Option<SpiffeId> {
    let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let names = leaf.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let identity = uris.next()?.parse().ok()?;
    uris.next().is_none().then_some(identity)
}
