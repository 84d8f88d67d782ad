//! A certificate authority for tests: root and intermediate, as the controller has them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use fsm_proxy_config::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Identity, Trust};

pub(crate) struct TestCa {
    root_pem: String,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl TestCa {
    pub fn new() -> Self {
        let (root_key, intermediate_key) = (key(), key());
        let root_params = authority();
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, root_key);
        let intermediate_params = authority();
        let intermediate = intermediate_params.signed_by(&intermediate_key, &root_issuer).unwrap();
        Self {
            root_pem: root.pem(),
            intermediate: intermediate.der().clone(),
            issuer: Issuer::new(intermediate_params, intermediate_key),
        }
    }

    pub fn trust_pem(&self) -> String {
        self.root_pem.clone()
    }

    pub fn trust(&self) -> Arc<Trust> {
        Arc::new(Trust::from_pem(&self.trust_pem()).unwrap())
    }

    /// A certificate valid from an hour ago until `lifetime` from now.
    pub fn issue(&self, spiffe: &str, lifetime: Duration) -> Identity {
        self.issue_with(&[spiffe], SystemTime::now() + lifetime).unwrap()
    }

    pub fn issue_with(&self, uris: &[&str], not_after: SystemTime) -> Result<Identity, super::InvalidIdentity> {
        let key = key();
        let params = leaf(uris, not_after);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![certificate.der().clone(), self.intermediate.clone()];
        Identity::new(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())), self.trust())
    }

    /// Signs a request, as the controller does: the names in it are ignored.
    pub fn sign(&self, csr_der: &[u8], spiffe: &SpiffeId, lifetime: Duration) -> Vec<Vec<u8>> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der)).unwrap();
        let params = leaf(&[&spiffe.to_string()], SystemTime::now() + lifetime);
        let certificate = params.signed_by(&request.public_key, &self.issuer).unwrap();
        vec![certificate.der().to_vec(), self.intermediate.to_vec()]
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn authority() -> CertificateParams {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut params = CertificateParams::default();
    let name = format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed));
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf(uris: &[&str], not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (not_after.min(SystemTime::now()) - Duration::from_secs(3600)).into();
    params.not_after = not_after.into();
    params
}
