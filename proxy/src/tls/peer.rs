//! Who a certificate belongs to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fsm_proxy_config::SpiffeId;
use fsm_proxy_config::identity::InvalidSpiffeId;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a certificate gives no identity.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPeer {
    #[error("no certificate was shown")]
    Missing,
    #[error("not an X.509 certificate: {0}")]
    Encoding(String),
    #[error("has {0} URI SANs; a workload certificate has exactly one, its SPIFFE ID")]
    UriSans(usize),
    #[error(transparent)]
    Spiffe(#[from] InvalidSpiffeId),
    #[error("expired {ago:?} ago")]
    Expired { ago: Duration },
}

/// What is read from a leaf certificate.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub spiffe: SpiffeId,
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// The SPIFFE ID in a certificate: its one URI SAN (X.509-SVID, section 2). Says nothing about whether the certificate is valid.
pub fn peer_identity(certificate: &CertificateDer<'_>) -> Result<SpiffeId, InvalidPeer> {
    leaf(certificate).map(|leaf| leaf.spiffe)
}

/// The peer of a handshake that is done, from the certificates that rustls keeps for it. Call this for every accepted connection:
/// a resumed session skips the verification of the certificate, which may have expired since.
pub fn established_peer(certificates: Option<&[CertificateDer<'_>]>, now: SystemTime) -> Result<SpiffeId, InvalidPeer> {
    let leaf = leaf(certificates.and_then(<[_]>::first).ok_or(InvalidPeer::Missing)?)?;
    match now.duration_since(leaf.not_after) {
        Ok(ago) => Err(InvalidPeer::Expired { ago }),
        Err(_) => Ok(leaf.spiffe),
    }
}

pub(super) fn leaf(certificate: &CertificateDer<'_>) -> Result<Leaf, InvalidPeer> {
    let encoding = |error: &dyn ToString| InvalidPeer::Encoding(error.to_string());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| encoding(&error))?;
    let names = parsed.subject_alternative_name().map_err(|error| encoding(&error))?;
    let uris: Vec<&str> = names.iter().flat_map(|names| &names.value.general_names).filter_map(uri).collect();
    let [uri] = uris.as_slice() else {
        return Err(InvalidPeer::UriSans(uris.len()));
    };
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Ok(Leaf {
        spiffe: uri.parse()?,
        serial: parsed.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before: time(parsed.validity().not_before.timestamp()),
        not_after: time(parsed.validity().not_after.timestamp()),
    })
}

fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    }
}
