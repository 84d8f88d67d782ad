//! Mutual TLS with workload identities.
//!
//! Both sides of every mesh connection show a certificate whose one URI SAN is a SPIFFE ID, and both check the other's
//! chain against the trust bundle of the mesh. A server learns who calls from it; a client demands exactly the identity that it
//! was told the endpoint has. TLS 1.3 only, ALPN `h2`.
//!
//! [`MeshTls`] holds the current certificate. A new one is used by new handshakes at once; connections that are
//! open go on.

mod identity;
mod mesh;
mod peer;
mod trust;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use identity::{Identity, InvalidIdentity};
pub use mesh::{MeshTls, NotReady};
pub use peer::{InvalidPeer, established_peer, peer_identity};
pub use trust::{InvalidTrust, Trust};

use std::sync::{Arc, LazyLock};

use fsm_proxy_config::SpiffeId;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::version::TLS13;

/// The protocol spoken between proxies.
pub const ALPN_H2: &[u8] = b"h2";

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(provider()));

/// AES-128 comes first: it takes a quarter less time than AES-256, and nobody can break either.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// For a client of `server`, which is verified against `trust`. Shows `ours` if the server asks.
///
/// # Errors
///
/// When TLS 1.3 is missing from the cryptography provider, which is a defect of the build.
pub fn client_config(
    trust: Arc<Trust>,
    server: SpiffeId,
    ours: Option<&Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = Arc::new(verify::ServerVerifier { trust, expected: server });
    let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match ours {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(verify::Always(identity.certified_key()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(config)
}
