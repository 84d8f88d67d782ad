//! What proxies last said. Nothing is computed from it but answers to "how far is everybody?".

use std::sync::Arc;

use fsm_proxy_config::{Digest, SpiffeId};
use fsm_store::Seq;

use super::ObjectName;
use super::map::PersistentMap;
use crate::fact::{Ack, Nack, ProxyFact, ProxyPhase};

/// One proxy, as far as the log knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyStatus {
    /// From its certificate; none before it connected.
    pub identity: Option<SpiffeId>,
    /// Its stream, while it is connected.
    pub instance: Option<String>,
    /// The proxy's version.
    pub version: String,
    /// The last version that it acknowledged, and the digest of its configuration.
    pub acked: Option<(Seq, Digest)>,
    /// The last version that it refused after that, and why.
    pub refused: Option<(Seq, String)>,
}

impl ProxyStatus {
    /// Whether its stream is open.
    pub fn is_connected(&self) -> bool {
        self.instance.is_some()
    }
}

/// All proxies that ever connected, and whose pod still is there.
#[derive(Clone, Debug, Default)]
pub struct Proxies(PersistentMap<ObjectName, Arc<ProxyStatus>>);

impl Proxies {
    /// The status of a proxy.
    pub fn get(&self, proxy: &ObjectName) -> Option<&ProxyStatus> {
        self.0.get(proxy).map(|status| &**status)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &ProxyStatus)> {
        self.0.iter().map(|(name, status)| (name, &**status))
    }

    fn update(&mut self, proxy: &ObjectName, change: impl FnOnce(&mut ProxyStatus)) {
        let mut status = self.get(proxy).cloned().unwrap_or_default();
        change(&mut status);
        self.0.insert(proxy.clone(), Arc::new(status));
    }

    pub(super) fn stream(&mut self, fact: &ProxyFact) {
        self.update(&fact.proxy, |status| match fact.phase {
            ProxyPhase::Connected => {
                status.identity = Some(fact.identity.clone());
                status.instance = Some(fact.instance.clone());
                status.version.clone_from(&fact.version);
            }
            // The end of an older stream says nothing about the present one.
            ProxyPhase::Disconnected => {
                status.instance.take_if(|instance| *instance == fact.instance);
            }
        });
    }

    pub(super) fn ack(&mut self, ack: &Ack) {
        self.update(&ack.proxy, |status| {
            status.acked = Some((ack.seq, ack.digest));
            status.refused = None;
        });
    }

    pub(super) fn nack(&mut self, nack: &Nack) {
        self.update(&nack.proxy, |status| status.refused = Some((nack.seq, nack.error.clone())));
    }

    pub(super) fn restore(&mut self, proxy: ObjectName, status: ProxyStatus) {
        self.0.insert(proxy, Arc::new(status));
    }

    pub(super) fn forget(&mut self, proxy: &ObjectName) {
        self.0.remove(proxy);
    }

    /// A controller starts: no stream of an earlier one is open any more.
    pub(super) fn all_disconnected(&mut self) {
        let connected: Vec<ObjectName> =
            self.iter().filter(|(_, status)| status.is_connected()).map(|(name, _)| name.clone()).collect();
        for proxy in connected {
            self.update(&proxy, |status| status.instance = None);
        }
    }
}
