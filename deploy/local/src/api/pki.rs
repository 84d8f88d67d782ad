//! The cluster's certificate authority, kept in the data directory, and what it signs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why the cluster's keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("can't read or write the cluster's key file {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "the cluster's certificate authority in {dir} can't be used ({source}); remove its files to make a new one"
    )]
    Authority { dir: PathBuf, source: rcgen::Error },
    #[error("can't make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("can't set up TLS: {0}")]
    Tls(String),
}

/// The certificate authority of the cluster.
#[derive(Debug)]
pub struct Authority {
    /// The CA certificate.
    pub certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Authority {
    /// Reads the authority from a directory, or makes one there. Its key is readable by the owner only.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if certificate_path.exists() && key_path.exists() {
            let certificate_pem = read(&certificate_path)?;
            let refuse = |source| PkiError::Authority { dir: dir.into(), source };
            let key = KeyPair::from_pem(&read(&key_path)?).map_err(refuse)?;
            let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(refuse)?;
            return Ok(Self { certificate_pem, issuer });
        }
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "fsm-local-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        valid_for_years(&mut params, 10);
        let key = KeyPair::generate()?;
        let certificate_pem = params.self_signed(&key)?.pem();
        write_private(&key_path, &key.serialize_pem())?;
        write_private(&certificate_path, &certificate_pem)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem })
    }

    /// A server certificate for these names and addresses.
    pub fn server(&self, names: &[String]) -> Result<Pair, PkiError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A client certificate for a user in a group.
    pub fn client(&self, user: &str, group: &str) -> Result<Pair, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Pair, PkiError> {
        valid_for_years(&mut params, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// TLS for the server: clients may show a certificate of this authority, and needn't.
    pub fn server_tls(&self, names: &[String]) -> Result<rustls::ServerConfig, PkiError> {
        let tls = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let pair = self.server(names)?;
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).map_err(|e| tls(&e))?;
        roots.add(authority).map_err(|e| tls(&e))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| tls(&e))?;
        let certificate = CertificateDer::from_pem_slice(pair.certificate_pem.as_bytes()).map_err(|e| tls(&e))?;
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).map_err(|e| tls(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .map_err(|e| tls(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn valid_for_years(params: &mut CertificateParams, years: i16) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let (month, day) = (today.month().unsigned_abs(), today.day().unsigned_abs().min(28));
    // A day of grace for clocks that disagree.
    params.not_before = rcgen::date_time_ymd(i32::from(today.year() - 1), month, day);
    params.not_after = rcgen::date_time_ymd(i32::from(today.year() + years), month, day);
}

fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::File { path: path.into(), source })
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, text: &str) -> Result<(), PkiError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| PkiError::File { path: path.into(), source })
}
