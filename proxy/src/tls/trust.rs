//! The certificates that peers are verified against.

use std::fmt;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator};

use super::PROVIDER;

/// A trust bundle: root certificates.
pub struct Trust {
    pem: String,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why a text is no trust bundle.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTrust {
    #[error("the trust bundle is not PEM: {0}")]
    Pem(rustls_pki_types::pem::Error),
    #[error("certificate {index} of the trust bundle: {source}")]
    Certificate { index: usize, source: webpki::Error },
    #[error("the trust bundle holds no certificate")]
    Empty,
}

impl Trust {
    /// Reads the certificates of a PEM text; what is not a certificate is skipped.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidTrust> {
        let mut anchors = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            let certificate = certificate.map_err(InvalidTrust::Pem)?;
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|source| InvalidTrust::Certificate { index, source })?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            return Err(InvalidTrust::Empty);
        }
        Ok(Self { pem: pem.to_owned(), anchors })
    }

    /// The text that this was read from.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// How many root certificates there are.
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// Never: a bundle has at least one certificate.
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// Checks that `leaf` chains to a root, is valid at `now`, and may be used for `usage`.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: impl ExtendedKeyUsageValidator,
    ) -> Result<(), webpki::Error> {
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        let leaf = EndEntityCert::try_from(leaf)?;
        leaf.verify_for_usage(algorithms, &self.anchors, intermediates, now, usage, None, None)?;
        Ok(())
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({} certificates)", self.anchors.len())
    }
}
