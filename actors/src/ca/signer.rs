//! Signing of leaf certificates.

use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use fsm_proxy_config::SpiffeId;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};

use super::authority::{issue, serial, set_validity};
use super::{Authority, CaError};

/// How long workload certificates are valid unless MeshConfig says otherwise.
const DEFAULT_VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Signs leaves. Shared by everything that needs a certificate; a new intermediate can be put in at any time.
#[derive(Clone)]
pub struct Signer {
    shared: Arc<RwLock<Shared>>,
}

struct Shared {
    authority: Arc<Authority>,
    validity: Duration,
}

/// A signed leaf.
#[derive(Clone, Debug)]
pub struct IssuedCertificate {
    /// Leaf, then intermediate, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the leaf's DER, hexadecimal.
    pub fingerprint: String,
    pub not_after: SystemTime,
}

impl Signer {
    /// A signer for an authority.
    pub fn new(authority: Authority) -> Self {
        let shared = Shared { authority: Arc::new(authority), validity: DEFAULT_VALIDITY };
        Self { shared: Arc::new(RwLock::new(shared)) }
    }

    /// The authority that signs now.
    pub fn authority(&self) -> Arc<Authority> {
        self.read(|shared| Arc::clone(&shared.authority))
    }

    /// Signs with another authority from now on (the same root, a newer intermediate).
    pub fn replace_authority(&self, authority: Authority) {
        self.write(|shared| shared.authority = Arc::new(authority));
    }

    /// Changes the lifetime of certificates signed from now on; `None` means the default of 24 hours.
    pub fn set_validity(&self, validity: Option<Duration>) {
        self.write(|shared| shared.validity = validity.unwrap_or(DEFAULT_VALIDITY));
    }

    /// The lifetime of workload certificates.
    pub fn validity(&self) -> Duration {
        self.read(|shared| shared.validity)
    }

    /// Signs a workload's request. Of the request only the public key counts, and the proof that its sender has the
    /// private key; the names are those of `identity`.
    pub fn sign(&self, csr_der: &[u8], identity: &SpiffeId, now: SystemTime) -> Result<IssuedCertificate, CaError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der.to_vec()))
            .map_err(|error| CaError::Request(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::Request("its key is not ECDSA P-256".to_owned()));
        }
        self.leaf(&request.public_key, identity, &[identity.dns_name()], self.validity(), now)
    }

    /// Signs a certificate for `key` with the URI SAN of `identity` and these DNS SANs.
    pub(super) fn leaf(
        &self,
        key: &impl PublicKeyData,
        identity: &SpiffeId,
        dns_names: &[String],
        validity: Duration,
        now: SystemTime,
    ) -> Result<IssuedCertificate, CaError> {
        let subject = identity.to_string();
        let authority = self.authority();
        let serial = serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Flomesh Service Mesh");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial.clone());
        params.subject_alt_names.push(SanType::URI(subject.clone().try_into().map_err(issue(&subject))?));
        for name in dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.clone().try_into().map_err(issue(&subject))?));
        }
        set_validity(&mut params, now, validity);
        let certificate = params.signed_by(key, authority.issuer()).map_err(issue(&subject))?;
        Ok(IssuedCertificate {
            serial: hex(&serial.to_bytes()),
            fingerprint: hex(&Sha256::digest(certificate.der())),
            chain: vec![certificate.der().clone(), authority.intermediate().clone()],
            not_after: now + validity,
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Shared) -> T) -> T {
        read(&self.shared.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn write(&self, write: impl FnOnce(&mut Shared)) {
        write(&mut self.shared.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
