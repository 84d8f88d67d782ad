//! One proxy's stream as a state machine: what it has, what is on its way, what waits. Pure.
//!
//! At most one version is on its way. While it is, later ones are merged, so a slow proxy gets the newest state next, not
//! every one in between.

use std::collections::{BTreeMap, BTreeSet};

use fsm_proxy_config::discovery::{Any, CONFIG_TYPE_URL, DeltaDiscoveryResponse, Resource};
use fsm_proxy_config::{ConfigSet, Digest, ResourceName, Update};
use fsm_store::{Seq, TraceContext};

use super::ProxyUpdate;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Delivery {
    in_flight: Option<Version>,
    waiting: Option<Version>,
    /// The proxy refused the last version: what waits is sent along with the next change only.
    held_back: bool,
}

/// A version for one proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub update: Update,
    pub trace: TraceContext,
    /// What the proxy's digest must be after it, if it was computed.
    pub expected: Option<Digest>,
}

/// What an answer of the proxy means.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// It runs this version.
    Acked { seq: Seq },
    /// It runs this version, but not with this content: send it everything.
    Differs { seq: Seq, expected: Digest },
    /// It refused this version.
    Nacked { seq: Seq },
    /// It answers something that is not on its way.
    Stale,
}

impl Delivery {
    /// The first version of a stream: what lies between the configuration and what the proxy holds already (resource names to
    /// versions, as of `running_seq`). Possibly empty: its acknowledgement proves what the proxy runs.
    pub fn first(config: &ConfigSet, held: &BTreeMap<String, String>, running_seq: u64) -> Version {
        // A proxy that is ahead of the log has its configuration from another one, whose versions say nothing here.
        let foreign = running_seq > config.seq;
        let mut update = Update { seq: config.seq, ..Update::default() };
        for (name, entry) in &config.resources {
            let same = held.get(&name.to_string()).is_some_and(|version| *version == entry.version.to_string());
            if foreign || !same {
                update.changed.insert(name.clone(), entry.clone());
            }
        }
        update.removed = held
            .keys()
            .filter_map(|name| name.parse::<ResourceName>().ok())
            .filter(|name| !config.resources.contains_key(name))
            .collect();
        update.removed.sort();
        Version { update, trace: TraceContext::default(), expected: Some(config.digest()) }
    }

    /// Takes a version in; gives what is to be sent now, if anything.
    pub fn offer(&mut self, version: Version) -> Option<DeltaDiscoveryResponse> {
        self.held_back = false;
        self.waiting = Some(match self.waiting.take() {
            Some(waiting) => waiting.then(version),
            None => version,
        });
        self.send()
    }

    /// The proxy acknowledged `nonce`; gives what it means. Ask [`Delivery::send`] for what is next.
    pub fn acked(&mut self, nonce: &str, digest: Option<Digest>) -> Answer {
        let Some(version) = self.take(nonce) else { return Answer::Stale };
        let seq = Seq(version.update.seq);
        match version.expected {
            Some(expected) if digest.is_some_and(|digest| digest != expected) => Answer::Differs { seq, expected },
            _ => Answer::Acked { seq },
        }
    }

    /// The proxy refused `nonce`, and goes on with what it had. What was refused is sent again with the next change.
    pub fn nacked(&mut self, nonce: &str) -> Answer {
        let Some(version) = self.take(nonce) else { return Answer::Stale };
        let answer = Answer::Nacked { seq: Seq(version.update.seq) };
        self.held_back = self.waiting.is_none();
        self.waiting = Some(match self.waiting.take() {
            Some(waiting) => version.then(waiting),
            None => version,
        });
        answer
    }

    /// The version that is on its way, and the change that led to it.
    pub fn under_way(&self) -> Option<(Seq, TraceContext)> {
        self.in_flight.as_ref().map(|version| (Seq(version.update.seq), version.trace))
    }

    /// What is to be sent now, if anything.
    pub fn send(&mut self) -> Option<DeltaDiscoveryResponse> {
        if self.in_flight.is_some() || self.held_back {
            return None;
        }
        let version = self.waiting.take()?;
        let response = response(&version);
        self.in_flight = Some(version);
        Some(response)
    }

    fn take(&mut self, nonce: &str) -> Option<Version> {
        self.in_flight.take_if(|version| version.update.seq.to_string() == nonce)
    }
}

impl From<ProxyUpdate> for Version {
    fn from(update: ProxyUpdate) -> Self {
        Self { update: update.update, trace: update.trace, expected: None }
    }
}

impl Version {
    /// Both in one: this one, then `later`.
    fn then(mut self, later: Self) -> Self {
        let mut removed: BTreeSet<ResourceName> = self.update.removed.into_iter().collect();
        for name in later.update.removed {
            self.update.changed.remove(&name);
            removed.insert(name);
        }
        for (name, entry) in later.update.changed {
            removed.remove(&name);
            self.update.changed.insert(name, entry);
        }
        let trace = if later.trace == TraceContext::default() { self.trace } else { later.trace };
        let update =
            Update { seq: later.update.seq, changed: self.update.changed, removed: removed.into_iter().collect() };
        Self { update, trace, expected: later.expected }
    }
}

fn response(version: &Version) -> DeltaDiscoveryResponse {
    let resources = version.update.changed.iter().map(|(name, entry)| Resource {
        version: entry.version.to_string(),
        name: name.to_string(),
        resource: Some(Any { type_url: name.kind.type_url(), value: entry.bytes.to_vec() }),
    });
    let seq = version.update.seq.to_string();
    DeltaDiscoveryResponse {
        system_version_info: seq.clone(),
        resources: resources.collect(),
        type_url: CONFIG_TYPE_URL.to_owned(),
        nonce: seq,
        removed_resources: version.update.removed.iter().map(ToString::to_string).collect(),
        traceparent: crate::span::traceparent(&version.trace),
    }
}

#[cfg(test)]
mod tests;
