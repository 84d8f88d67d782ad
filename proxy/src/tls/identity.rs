//! A workload's own certificate and key.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use fsm_proxy_config::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::peer::{self, InvalidPeer, Leaf};
use super::{PROVIDER, Trust};

/// A certificate of this workload with its key, and what its peers are verified against. The key is in memory only
/// and is never printed.
#[derive(Clone)]
pub struct Identity {
    spiffe: SpiffeId,
    certified: Arc<CertifiedKey>,
    trust: Arc<Trust>,
    leaf: Leaf,
}

/// Why a chain and a key are no identity.
#[derive(Debug, thiserror::Error)]
pub enum InvalidIdentity {
    #[error("the certificate chain is empty")]
    Empty,
    #[error("the workload's certificate: {0}")]
    Leaf(#[from] InvalidPeer),
    #[error("the key of the workload's certificate: {0}")]
    Key(rustls::Error),
}

impl Identity {
    /// `chain` is the leaf, then intermediates; `key` belongs to the leaf.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        trust: Arc<Trust>,
    ) -> Result<Self, InvalidIdentity> {
        let leaf = peer::leaf(chain.first().ok_or(InvalidIdentity::Empty)?)?;
        let certified = CertifiedKey::from_der(chain, key, &PROVIDER).map_err(InvalidIdentity::Key)?;
        Ok(Self { spiffe: leaf.spiffe.clone(), certified: Arc::new(certified), trust, leaf })
    }

    /// The same certificate, with peers verified against another bundle.
    #[must_use]
    pub fn with_trust(&self, trust: Arc<Trust>) -> Self {
        Self { trust, ..self.clone() }
    }

    /// Who this workload is.
    pub fn spiffe(&self) -> &SpiffeId {
        &self.spiffe
    }

    /// Leaf first, then intermediates.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The chain with its key, for rustls.
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }

    /// What peers are verified against.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// The serial number of the leaf, in hexadecimal.
    pub fn serial(&self) -> &str {
        &self.leaf.serial
    }

    pub fn not_before(&self) -> SystemTime {
        self.leaf.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.leaf.not_after
    }

    /// No longer valid at `now`.
    pub fn is_expired(&self, now: SystemTime) -> bool {
        now >= self.not_after()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, serial {})", self.spiffe, self.leaf.serial)
    }
}
