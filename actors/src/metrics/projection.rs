//! From records to counts. Pure: the same records give the same metrics.

use std::collections::{BTreeMap, VecDeque};

use fsm_store::{Record, Seq, Timestamp};

use super::exposition::{Exposition, Histogram};
use crate::catalog::ObjectName;
use crate::fact::{Ack, Fact, ObjectChange, ProxyFact, ProxyPhase};

/// Times of this many last records are kept, to say how long a version took to reach a proxy.
const TIMES: usize = 1 << 16;

/// Propagation is a matter of milliseconds; the upper end shows trouble.
const PROPAGATION_BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What was counted so far.
#[derive(Clone, Debug)]
pub struct Projection {
    seq: Seq,
    times: VecDeque<(Seq, Timestamp)>,
    /// Objects seen: by `<Kind>-<change>` and namespace.
    events: BTreeMap<(String, String), u64>,
    proxies: BTreeMap<ObjectName, Proxy>,
    connects: u64,
    reconnects: u64,
    acks: u64,
    nacks: u64,
    certificates: u64,
    injected: u64,
    refused: u64,
    propagation: Histogram<14>,
}

/// A connected proxy.
#[derive(Clone, Debug)]
struct Proxy {
    instance: String,
    connected_at: Seq,
    acked: Option<Seq>,
}

impl Default for Projection {
    fn default() -> Self {
        Self {
            seq: Seq::ZERO,
            times: VecDeque::new(),
            events: BTreeMap::new(),
            proxies: BTreeMap::new(),
            connects: 0,
            reconnects: 0,
            acks: 0,
            nacks: 0,
            certificates: 0,
            injected: 0,
            refused: 0,
            propagation: Histogram::new(PROPAGATION_BOUNDS),
        }
    }
}

impl Projection {
    /// Counts one record.
    pub fn observe(&mut self, record: &Record) {
        self.seq = record.seq;
        if self.times.len() == TIMES {
            self.times.pop_front();
        }
        self.times.push_back((record.seq, record.time));
        match Fact::parse(&record.entry) {
            Ok(Fact::Object(fact)) => {
                let kind = fact.gvk.rsplit('/').next().unwrap_or_default();
                let change = match fact.change {
                    ObjectChange::Applied => "applied",
                    ObjectChange::Deleted => "deleted",
                };
                *self.events.entry((format!("{kind}-{change}"), fact.name.namespace().to_owned())).or_default() += 1;
            }
            Ok(Fact::Proxy(fact)) => self.stream(record.seq, fact),
            Ok(Fact::Ack(ack)) => self.ack(record.time, &ack),
            Ok(Fact::Nack(_)) => self.nacks += 1,
            Ok(Fact::CertificateIssued(_)) => self.certificates += 1,
            Ok(Fact::PodAdmitted(fact)) if fact.outcome == "refused" => self.refused += 1,
            Ok(Fact::PodAdmitted(_)) => self.injected += 1,
            // A controller starts: streams of an earlier one are over.
            Ok(Fact::ControllerStarted(_)) => self.proxies.clear(),
            Ok(Fact::Relist(_) | Fact::ControllerStopped(_) | Fact::StateDigest(_) | Fact::Unknown { .. }) | Err(_) => {
            }
        }
    }

    /// Pods that the webhook let pass (with or without a sidecar), and that it refused.
    pub fn admissions(&self) -> (u64, u64) {
        (self.injected, self.refused)
    }

    fn stream(&mut self, seq: Seq, fact: ProxyFact) {
        match fact.phase {
            ProxyPhase::Connected => {
                self.connects += 1;
                self.reconnects += u64::from(fact.running_seq > 0);
                let proxy = Proxy { instance: fact.instance, connected_at: seq, acked: None };
                self.proxies.insert(fact.proxy, proxy);
            }
            ProxyPhase::Disconnected => {
                if self.proxies.get(&fact.proxy).is_some_and(|proxy| proxy.instance == fact.instance) {
                    self.proxies.remove(&fact.proxy);
                }
            }
        }
    }

    fn ack(&mut self, time: Timestamp, ack: &Ack) {
        self.acks += 1;
        let Some(proxy) = self.proxies.get_mut(&ack.proxy) else { return };
        proxy.acked = Some(ack.seq);
        // What was there before the proxy came says nothing about how fast changes travel.
        if ack.seq <= proxy.connected_at {
            return;
        }
        let Ok(index) = self.times.binary_search_by_key(&ack.seq, |(seq, _)| *seq) else { return };
        self.propagation.observe(time.0.saturating_sub(self.times[index].1.0) as f64 / 1e6);
    }

    /// Writes all families.
    pub(super) fn render(&self, out: &mut Exposition) {
        for (name, kind, help, value) in [
            ("fsm_log_seq", "gauge", "Seq of the last record that was counted.", self.seq.0),
            ("fsm_proxy_connect_count", "gauge", "Proxies whose stream is open.", self.proxies.len() as u64),
            ("fsm_proxy_connects_total", "counter", "Streams that proxies opened.", self.connects),
            (
                "fsm_proxy_reconnect_count",
                "counter",
                "Streams of proxies that had a configuration already.",
                self.reconnects,
            ),
            ("fsm_proxy_acks_total", "counter", "Versions that proxies acknowledged.", self.acks),
            ("fsm_proxy_nacks_total", "counter", "Versions that proxies refused.", self.nacks),
            ("fsm_cert_issued_count", "counter", "Workload certificates that were signed.", self.certificates),
        ] {
            out.family(name, kind, help);
            out.sample(name, &[], value as f64);
        }
        let name = "fsm_k8s_api_event_count";
        out.family(name, "counter", "Changes of Kubernetes objects that were recorded.");
        for ((kind, namespace), count) in &self.events {
            out.sample(name, &[("type", kind), ("namespace", namespace)], *count as f64);
        }
        let name = "fsm_proxy_version";
        out.family(name, "gauge", "Version (seq) that a connected proxy acknowledged last.");
        for (proxy, state) in &self.proxies {
            if let Some(Seq(seq)) = state.acked {
                out.sample(name, &[("namespace", proxy.namespace()), ("pod", proxy.name())], seq as f64);
            }
        }
        let name = "fsm_propagation_seconds";
        out.family(
            name,
            "histogram",
            "Time from a change's record to the acknowledgement of a proxy that it concerns.",
        );
        self.propagation.render(name, out);
    }
}
