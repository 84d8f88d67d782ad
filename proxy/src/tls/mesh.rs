//! The TLS configurations of the current certificate.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use fsm_proxy_config::SpiffeId;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tokio::time::Instant;

use super::verify::{Always, ClientVerifier};
use super::{ALPN_H2, Identity, PROVIDER, Trust, client_config};

/// Gives the configuration for each new handshake. Cheap to clone; all clones see a new certificate at once.
///
/// Sessions may be resumed as long as the certificate they began with is the current one: a new certificate or trust
/// bundle comes with empty session caches.
#[derive(Clone, Debug, Default)]
pub struct MeshTls {
    current: Arc<ArcSwapOption<Current>>,
    inputs: Arc<Mutex<Inputs>>,
    start: Arc<Start>,
}

/// The time without a certificate. By default it is over at once.
#[derive(Debug)]
struct Start {
    issued: watch::Sender<bool>,
    /// Until then connections wait.
    patient_until: Instant,
}

impl Default for Start {
    fn default() -> Self {
        Self { issued: watch::Sender::default(), patient_until: Instant::now() }
    }
}

/// What [`Current`] is made from.
#[derive(Debug, Default)]
struct Inputs {
    identity: Option<Identity>,
    /// Counts instead of the bundle that came with the certificate.
    trust: Option<Arc<Trust>>,
}

struct Current {
    identity: Identity,
    server: Arc<ServerConfig>,
    clients: Mutex<HashMap<SpiffeId, Arc<ClientConfig>>>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

/// Why there is no TLS now.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    #[error("this workload has no certificate yet: it waits for the controller to sign one")]
    NoCertificate,
    #[error("the certificate of {spiffe} expired {ago_s} s ago, and the controller has not renewed it")]
    Expired { spiffe: SpiffeId, ago_s: u64 },
    #[error("TLS cannot be configured: {0}")]
    Config(#[from] rustls::Error),
}

impl MeshTls {
    /// Of a proxy that has just started: whoever asks [`issued`](Self::issued) within `patience` from now waits for the first certificate.
    pub fn starting(patience: Duration) -> Self {
        let start = Start { patient_until: Instant::now() + patience, ..Start::default() };
        Self { start: Arc::new(start), ..Self::default() }
    }

    /// Waits for the first certificate, if the proxy has just started: a signature takes less time than a client's next attempt.
    pub async fn issued(&self) {
        if self.current.load().is_some() {
            return;
        }
        let mut issued = self.start.issued.subscribe();
        // Whether it came or not, the caller asks for it next, and says why there is none.
        let _ = tokio::time::timeout_at(self.start.patient_until, issued.wait_for(|issued| *issued)).await;
    }

    /// Uses `identity` for all handshakes from now on.
    pub fn set(&self, identity: Identity) -> Result<(), NotReady> {
        self.change(|inputs| inputs.identity = Some(identity))
    }

    /// Verifies peers against `trust` from now on, whatever bundle comes with this or a later certificate.
    pub fn set_trust(&self, trust: Arc<Trust>) -> Result<(), NotReady> {
        self.change(|inputs| inputs.trust = Some(trust))
    }

    fn change(&self, change: impl FnOnce(&mut Inputs)) -> Result<(), NotReady> {
        let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inputs);
        let Some(identity) = inputs.identity.clone() else { return Ok(()) };
        let identity = match &inputs.trust {
            Some(trust) => identity.with_trust(trust.clone()),
            None => identity,
        };
        let mut server = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(ClientVerifier { trust: identity.trust().clone() }))
            .with_cert_resolver(Arc::new(Always(identity.certified_key())));
        server.alpn_protocols = vec![ALPN_H2.to_vec()];
        let current = Current { identity, server: Arc::new(server), clients: Mutex::default() };
        self.current.store(Some(Arc::new(current)));
        self.start.issued.send_replace(true);
        Ok(())
    }

    /// The current certificate, even if it has expired.
    pub fn identity(&self) -> Option<Identity> {
        self.current.load().as_ref().map(|current| current.identity.clone())
    }

    /// For a connection accepted from another proxy. After the handshake, ask
    /// [`established_peer`](super::established_peer) who it is.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, NotReady> {
        Ok(self.valid(SystemTime::now())?.server.clone())
    }

    /// For a connection to a proxy that must be `peer`.
    pub fn client_config(&self, peer: &SpiffeId) -> Result<Arc<ClientConfig>, NotReady> {
        let current = self.valid(SystemTime::now())?;
        let mut clients = current.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(peer) {
            return Ok(config.clone());
        }
        let identity = &current.identity;
        let config = Arc::new(client_config(identity.trust().clone(), peer.clone(), Some(identity))?);
        clients.insert(peer.clone(), config.clone());
        Ok(config)
    }

    fn valid(&self, now: SystemTime) -> Result<Arc<Current>, NotReady> {
        let current = self.current.load_full().ok_or(NotReady::NoCertificate)?;
        match now.duration_since(current.identity.not_after()) {
            Ok(ago) => Err(NotReady::Expired { spiffe: current.identity.spiffe().clone(), ago_s: ago.as_secs() }),
            Err(_) => Ok(current),
        }
    }
}
