//! The controller: facts that wait, the state machines, and one delivery for each proxy's stream.

use std::collections::{BTreeMap, VecDeque};

use fastrand::Rng;
use fsm_actors::catalog::{Catalog, ObjectName};
use fsm_actors::core::snapshot;
use fsm_actors::fact::{Ack, ControllerStarted, Nack, ProxyFact, ProxyPhase, StateDigest};
use fsm_actors::publish::{Answer, Delivery, Followed};
use fsm_actors::{Core, Fact};
use fsm_proxy_config::discovery::DeltaDiscoveryResponse;
use fsm_proxy_config::{Digest, SpiffeId};
use fsm_store::{Entry, Seq, TraceContext};

use super::Outcome;
use super::cluster::{MESH_CONFIG, MESH_NAMESPACE};
use super::log::Log;

#[derive(Default)]
pub struct Controller {
    pub log: Log,
    core: Core,
    /// Facts that are not committed yet.
    waiting: VecDeque<Entry>,
    sessions: BTreeMap<ObjectName, Session>,
    streams: u64,
}

/// The controller's end of a stream.
struct Session {
    stream: u64,
    delivery: Delivery,
    identity: SpiffeId,
    /// On its way to the proxy.
    out: VecDeque<DeltaDiscoveryResponse>,
}

impl Controller {
    /// A controller starts on the log.
    pub fn begin(&mut self) {
        self.core.follow(Followed::Everybody);
        self.append([Fact::ControllerStarted(ControllerStarted {
            version: "0.1.0".into(),
            mesh_name: "fsm".into(),
            mesh_namespace: MESH_NAMESPACE.into(),
            mesh_config: MESH_CONFIG.into(),
            trust_domain: "cluster.local".into(),
            trust_bundle_pem: "the root certificate\n".into(),
            ..ControllerStarted::default()
        })]);
    }

    pub fn catalog(&self) -> &Catalog {
        self.core.catalog()
    }

    pub fn core(&self) -> &Core {
        &self.core
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn append(&mut self, facts: impl IntoIterator<Item = Fact>) {
        self.waiting.extend(facts.into_iter().map(|fact| fact.to_entry(TraceContext::default())));
    }

    /// The first so many waiting facts become durable, and then one version.
    pub fn commit(&mut self, size: usize, now: u64) -> Outcome {
        let size = size.min(self.waiting.len());
        if size == 0 {
            return Ok(());
        }
        let records = self.log.store(self.waiting.drain(..size), now);
        let updates = self.core.apply(records);
        for proxy in self.core.take_left() {
            self.sessions.remove(&proxy);
        }
        for update in updates {
            if update.update.changed.is_empty() && update.update.removed.is_empty() {
                return Err(format!("{} is told of a version that tells it nothing", update.proxy));
            }
            if let Some(session) = self.sessions.get_mut(&update.proxy) {
                let response = session.delivery.offer(update.into());
                session.out.extend(response);
            }
        }
        Ok(())
    }

    /// A commit fails: its frame is stored or not, and nobody was told.
    pub fn fail_commit(&mut self, stored: bool, now: u64) {
        let frame: Vec<Entry> = self.waiting.drain(..).collect();
        if stored {
            self.log.store(frame, now);
        }
    }

    /// The process ends and starts again; `torn` if the log may hold more than it had acknowledged.
    pub fn restart(&mut self, rng: &mut Rng, torn: bool) -> Outcome {
        let mut before = std::mem::take(&mut self.core);
        if torn {
            let from = before.seq();
            let rest: Vec<_> = self.log.records.iter().filter(|record| record.seq > from).cloned().collect();
            before.apply(&rest);
        }
        self.core = self.log.rebuild(rng.usize(0..3))?;
        self.same(&before)?;
        self.waiting.clear();
        self.sessions.clear();
        self.begin();
        Ok(())
    }

    /// State machines panicked and were rebuilt; streams go on as if nothing had happened.
    pub fn rebuild_actors(&mut self, rng: &mut Rng) -> Outcome {
        let before = std::mem::take(&mut self.core);
        self.core = self.log.rebuild(rng.usize(0..3))?;
        self.core.follow(Followed::Everybody);
        self.same(&before)
    }

    fn same(&self, before: &Core) -> Outcome {
        if (self.core.seq(), self.core.digests()) != (before.seq(), before.digests()) {
            return Err(format!(
                "rebuilt to seq {}, another state than at seq {} before",
                self.core.seq(),
                before.seq()
            ));
        }
        for proxy in before.proxies() {
            if self.core.config_of(proxy) != before.config_of(proxy) {
                return Err(format!("rebuilt, {proxy} would be told something else than before"));
            }
        }
        Ok(())
    }

    pub fn take_snapshot(&mut self, damaged: bool) -> Outcome {
        let mut bytes = snapshot::write(&self.core);
        let restored = snapshot::restore(&bytes).map_err(|error| error.to_string())?;
        if !restored.differing.is_empty() {
            return Err(format!("a snapshot leads to another state of {:?}", restored.differing));
        }
        if damaged {
            bytes.truncate(bytes.len() / 2);
        }
        self.log.put_snapshot(self.core.seq(), bytes, damaged);
        Ok(())
    }

    pub fn compact(&mut self) -> bool {
        self.log.compact()
    }

    /// The digests of the state, as a fact, as the publisher records them.
    pub fn record_digests(&mut self) {
        let digests = self.core.digests().into_iter().map(|(machine, digest)| (machine, digest.to_string())).collect();
        let seq = self.core.seq();
        if seq > Seq::ZERO {
            self.append([Fact::StateDigest(StateDigest { seq, digests })]);
        }
    }

    /// A proxy opens a stream; its number, if it is let in.
    pub fn connect(
        &mut self,
        proxy: &ObjectName,
        account: &ObjectName,
        held: &BTreeMap<String, String>,
        running_seq: u64,
    ) -> Option<u64> {
        if self.core.account_of(proxy) != Some(account) {
            return None;
        }
        let config = self.core.config_of(proxy)?;
        let identity = SpiffeId::new("cluster.local", account.namespace(), account.name()).ok()?;
        self.streams += 1;
        let stream = self.streams;
        let mut delivery = Delivery::default();
        let out = delivery.offer(Delivery::first(&config, held, running_seq)).into_iter().collect();
        self.stream_fact(proxy, &identity, stream, ProxyPhase::Connected, running_seq);
        self.sessions.insert(proxy.clone(), Session { stream, delivery, identity, out });
        Some(stream)
    }

    fn stream_fact(
        &mut self,
        proxy: &ObjectName,
        identity: &SpiffeId,
        stream: u64,
        phase: ProxyPhase,
        running_seq: u64,
    ) {
        self.append([Fact::Proxy(ProxyFact {
            phase,
            proxy: proxy.clone(),
            identity: identity.clone(),
            instance: stream.to_string(),
            version: "0.1.0".into(),
            running_seq,
        })]);
    }

    /// Ends the streams for which `still` says no.
    pub fn drop_sessions_but(&mut self, still: impl Fn(&ObjectName, u64) -> bool) {
        let gone: Vec<ObjectName> = self
            .sessions
            .iter()
            .filter(|(name, session)| !still(name, session.stream))
            .map(|(name, _)| name.clone())
            .collect();
        for proxy in gone {
            if let Some(session) = self.sessions.remove(&proxy) {
                self.stream_fact(&proxy, &session.identity, session.stream, ProxyPhase::Disconnected, 0);
            }
        }
    }

    /// Whether this stream is still open at this end.
    pub fn has(&self, proxy: &ObjectName, stream: u64) -> bool {
        self.sessions.get(proxy).is_some_and(|session| session.stream == stream)
    }

    /// What arrives at the proxy next.
    pub fn receive(&mut self, proxy: &ObjectName) -> Option<DeltaDiscoveryResponse> {
        self.sessions.get_mut(proxy)?.out.pop_front()
    }

    /// A proxy's answer arrives: the digest of what it runs, or why it refuses.
    pub fn answer(&mut self, proxy: &ObjectName, nonce: &str, answer: Result<Digest, String>) -> Outcome {
        let Some(session) = self.sessions.get_mut(proxy) else { return Ok(()) };
        let meaning = match &answer {
            Ok(digest) => session.delivery.acked(nonce, Some(*digest)),
            Err(_) => session.delivery.nacked(nonce),
        };
        let next = session.delivery.send();
        session.out.extend(next);
        match (meaning, answer) {
            (Answer::Acked { seq }, Ok(digest)) => self.append([Fact::Ack(Ack { proxy: proxy.clone(), seq, digest })]),
            (Answer::Nacked { seq }, Err(error)) => {
                self.append([Fact::Nack(Nack { proxy: proxy.clone(), seq, error })])
            }
            (Answer::Stale, _) => {}
            (Answer::Differs { seq, expected }, Ok(digest)) => {
                return Err(format!("{proxy} runs {digest} as version {seq}, and should run {expected}"));
            }
            (meaning, answer) => return Err(format!("{answer:?} was taken as {meaning:?}")),
        }
        Ok(())
    }

    /// What holds after every step.
    pub fn check(&self) -> Outcome {
        if self.core.seq() != self.log.last() {
            return Err(format!("the state is at seq {}, the log at {}", self.core.seq(), self.log.last()));
        }
        Ok(())
    }
}
