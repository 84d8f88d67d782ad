//! Root and intermediate: made once, kept as PEM.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::CaError;

const DAY: Duration = Duration::from_secs(86_400);
/// How long a root is valid. Every proxy must be given a new one before that.
const ROOT_VALIDITY: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// How long an intermediate is valid. It is replaced when half of that is over; proxies notice nothing, since they trust the root.
const INTERMEDIATE_VALIDITY: Duration = Duration::from_secs(730 * DAY.as_secs());
/// Clocks of the cluster may differ by this much.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Everything of an authority, as text: what the Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityPem {
    pub root_certificate: String,
    pub root_key: String,
    pub intermediate_certificate: String,
    pub intermediate_key: String,
}

/// An authority that can sign.
pub struct Authority {
    root_pem: String,
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    intermediate_not_after: SystemTime,
}

impl AuthorityPem {
    /// A new root and intermediate.
    pub fn generate(now: SystemTime) -> Result<Self, CaError> {
        let subject = "the mesh root";
        let key = new_key(subject)?;
        let mut params = ca_params("fsm-ca.flomesh.io", 1, now, ROOT_VALIDITY)?;
        params.use_authority_key_identifier_extension = false;
        let certificate = params.self_signed(&key).map_err(issue(subject))?;
        Self::with_root(certificate.pem(), key.serialize_pem(), now)
    }

    /// A new intermediate under an existing root.
    pub fn with_root(root_certificate: String, root_key: String, now: SystemTime) -> Result<Self, CaError> {
        let subject = "the mesh intermediate";
        let root_key_pair = key_pair("private.key", &root_key)?;
        let issuer = Issuer::from_ca_cert_pem(&root_certificate, root_key_pair).map_err(stored("ca.crt"))?;
        let key = new_key(subject)?;
        let params = ca_params("fsm-intermediate.flomesh.io", 0, now, INTERMEDIATE_VALIDITY)?;
        let certificate = params.signed_by(&key, &issuer).map_err(issue(subject))?;
        Ok(Self {
            root_certificate,
            root_key,
            intermediate_certificate: certificate.pem(),
            intermediate_key: key.serialize_pem(),
        })
    }
}

impl Authority {
    /// Reads an authority, and checks that its parts belong together.
    pub fn from_pem(pem: &AuthorityPem) -> Result<Self, CaError> {
        let root = certificate("ca.crt", &pem.root_certificate)?;
        let intermediate = certificate("intermediate.crt", &pem.intermediate_certificate)?;
        let key = key_pair("intermediate.key", &pem.intermediate_key)?;
        let (root_x509, intermediate_x509) = (parse("ca.crt", &root)?, parse("intermediate.crt", &intermediate)?);
        intermediate_x509.verify_signature(Some(root_x509.public_key())).map_err(|_| CaError::Stored {
            field: "intermediate.crt",
            reason: "ca.crt has not signed it".to_owned(),
        })?;
        let intermediate_key = &intermediate_x509.public_key().subject_public_key.data;
        if intermediate_key.as_ref() != rcgen::PublicKeyData::der_bytes(&key) {
            let reason = "intermediate.crt is for another key".to_owned();
            return Err(CaError::Stored { field: "intermediate.key", reason });
        }
        let not_after = u64::try_from(intermediate_x509.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            root_pem: pem.root_certificate.clone(),
            issuer: Issuer::from_ca_cert_der(&intermediate, key).map_err(stored("intermediate.crt"))?,
            intermediate_not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after),
            root,
            intermediate,
        })
    }

    /// What workloads and the API server verify certificates against, PEM.
    pub fn trust_pem(&self) -> &str {
        &self.root_pem
    }

    /// The root.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The certificate that leaves are signed with; part of every chain.
    pub fn intermediate(&self) -> &CertificateDer<'static> {
        &self.intermediate
    }

    /// Whether it is time for a new intermediate.
    pub fn intermediate_is_old(&self, now: SystemTime) -> bool {
        now + INTERMEDIATE_VALIDITY / 2 > self.intermediate_not_after
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

/// A random serial number: positive, 16 bytes (RFC 5280, section 4.1.2.2).
pub(super) fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Random)?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Sets when a certificate is valid: a little before now, since clocks differ, and until `validity` from now.
pub(super) fn set_validity(params: &mut CertificateParams, now: SystemTime, validity: Duration) {
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since_epoch.as_secs());
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + validity;
}

pub(super) fn issue(subject: &str) -> impl Fn(rcgen::Error) -> CaError {
    move |source| CaError::Issue { subject: subject.to_owned(), source }
}

fn ca_params(name: &str, path_len: u8, now: SystemTime, validity: Duration) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Flomesh Service Mesh");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    set_validity(&mut params, now, validity);
    Ok(params)
}

fn new_key(subject: &str) -> Result<KeyPair, CaError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(issue(subject))
}

fn key_pair(field: &'static str, pem: &str) -> Result<KeyPair, CaError> {
    KeyPair::from_pem(pem).map_err(stored(field))
}

fn certificate(field: &'static str, pem: &str) -> Result<CertificateDer<'static>, CaError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| CaError::Stored { field, reason: error.to_string() })
}

fn parse<'a>(
    field: &'static str,
    der: &'a CertificateDer<'_>,
) -> Result<x509_parser::certificate::X509Certificate<'a>, CaError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(CaError::Stored { field, reason: error.to_string() }),
    }
}

fn stored(field: &'static str) -> impl Fn(rcgen::Error) -> CaError {
    move |error| CaError::Stored { field, reason: error.to_string() }
}
