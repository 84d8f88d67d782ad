//! From a change to its acknowledgement by every proxy that it concerns, computed from the log.

use std::collections::{BTreeMap, BTreeSet};

use fsm_actors::catalog::ObjectName;
use fsm_actors::core::Core;
use fsm_actors::fact::{Fact, ProxyPhase};
use fsm_actors::publish::Followed;
use fsm_store::{Record, Seq, Timestamp};

/// One change that every proxy concerned has acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub struct Propagated {
    pub seq: Seq,
    /// What changed: the record's key.
    pub key: String,
    /// How many proxies had to be told.
    pub proxies: usize,
    /// From the record's time to the last acknowledgement's.
    pub millis: f64,
}

/// Follows the log with the control plane's own state machines, and so knows who has to be told what.
pub struct Propagation {
    core: Core,
    /// Proxies whose stream is up and that have acknowledged something on it.
    following: BTreeSet<ObjectName>,
    waiting: BTreeMap<Seq, Waiting>,
    pub done: Vec<Propagated>,
}

struct Waiting {
    key: String,
    since: Timestamp,
    concerned: usize,
    not_yet: BTreeSet<ObjectName>,
}

impl Propagation {
    pub fn new() -> Self {
        Self {
            core: Core::new(Followed::Everybody),
            following: BTreeSet::new(),
            waiting: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    pub fn seq(&self) -> Seq {
        self.core.seq()
    }

    /// Takes the next record.
    pub fn apply(&mut self, record: &Record) {
        let fact = Fact::parse(&record.entry);
        if matches!(fact, Ok(Fact::ControllerStarted(_))) {
            // Streams end with the controller that held them; no record says so when it was killed.
            self.following.clear();
        }
        let updates = self.core.apply(std::slice::from_ref(record));
        let not_yet: BTreeSet<ObjectName> =
            updates.into_iter().map(|update| update.proxy).filter(|proxy| self.following.contains(proxy)).collect();
        if !not_yet.is_empty() {
            let (key, since, concerned) = (record.entry.key.to_string(), record.time, not_yet.len());
            self.waiting.insert(record.seq, Waiting { key, since, concerned, not_yet });
        }
        match fact {
            Ok(Fact::Ack(ack)) => {
                self.settle(&ack.proxy, ack.seq, Some(record.time));
                self.following.insert(ack.proxy);
            }
            Ok(Fact::Proxy(stream)) => {
                self.following.remove(&stream.proxy);
                if stream.phase == ProxyPhase::Disconnected {
                    self.settle(&stream.proxy, Seq(u64::MAX), None);
                }
            }
            _ => {}
        }
    }

    /// True when every change up to `seq` has reached every proxy that it concerns.
    pub fn settled(&self, seq: Seq) -> bool {
        self.seq() >= seq && self.waiting.range(..=seq).next().is_none()
    }

    /// `proxy` runs `seq` (or, without a time, is gone and need not be waited for).
    fn settle(&mut self, proxy: &ObjectName, seq: Seq, time: Option<Timestamp>) {
        for (_, change) in self.waiting.range_mut(..=seq) {
            change.not_yet.remove(proxy);
        }
        let done: Vec<Seq> =
            self.waiting.range(..=seq).filter(|(_, change)| change.not_yet.is_empty()).map(|(seq, _)| *seq).collect();
        for seq in done {
            if let (Some(change), Some(time)) = (self.waiting.remove(&seq), time) {
                let millis = time.0.saturating_sub(change.since.0) as f64 / 1000.0;
                self.done.push(Propagated { seq, key: change.key, proxies: change.concerned, millis });
            }
        }
    }
}
