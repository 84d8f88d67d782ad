//! The controller's own certificate, for the proxies' port and the webhooks; replaced in place before it expires.

use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use fsm_proxy_config::SpiffeId;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::authority::issue;
use super::{CaError, Signer};

/// How long a server certificate is valid. A new one is made when half of that is over.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// A certificate that connections are answered with.
pub struct ServerCertificate {
    signer: Signer,
    identity: SpiffeId,
    dns_names: Vec<String>,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ServerCertificate {
    /// A first certificate with the SANs of a controller in `namespace`.
    pub fn new(signer: Signer, trust_domain: &str, namespace: &str, now: SystemTime) -> Result<Arc<Self>, CaError> {
        let identity = SpiffeId::new(trust_domain, namespace, "fsm-controller")
            .map_err(|error| CaError::Request(error.to_string()))?;
        let mut dns_names = vec![identity.dns_name()];
        for service in ["fsm-controller", "fsm-injector"] {
            for suffix in [format!("{namespace}.svc"), format!("{namespace}.svc.cluster.local"), namespace.to_owned()] {
                dns_names.push(format!("{service}.{suffix}"));
            }
            dns_names.push(service.to_owned());
        }
        dns_names.push("localhost".to_owned());
        let first = certified_key(&signer, &identity, &dns_names, now)?;
        Ok(Arc::new(Self { signer, identity, dns_names, current: RwLock::new(Arc::new(first)) }))
    }

    /// Makes a new certificate; connections that are open keep the old one.
    pub fn renew(&self, now: SystemTime) -> Result<(), CaError> {
        let renewed = certified_key(&self.signer, &self.identity, &self.dns_names, now)?;
        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(renewed);
        Ok(())
    }

    /// Renews for ever. A renewal that fails is tried again soon, long before the certificate expires.
    pub async fn keep_fresh(self: Arc<Self>) {
        loop {
            tokio::time::sleep(VALIDITY / 2).await;
            while let Err(error) = self.renew(SystemTime::now()) {
                tracing::error!(%error, "can't renew the controller's own certificate: trying again in a minute");
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        }
    }

    /// Leaf, then intermediate.
    #[cfg(test)]
    pub(super) fn current_chain(&self) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        self.current().cert.clone()
    }

    fn current(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn certified_key(
    signer: &Signer,
    identity: &SpiffeId,
    dns_names: &[String],
    now: SystemTime,
) -> Result<CertifiedKey, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(issue("the controller"))?;
    let issued = signer.leaf(&key, identity, dns_names, VALIDITY, now)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der)?;
    Ok(CertifiedKey::new(issued.chain, key))
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerCertificate({})", self.identity)
    }
}
