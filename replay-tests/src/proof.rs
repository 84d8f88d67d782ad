//! A log as it is when proxies acknowledge what they are told and the controller records its digests.

use std::collections::BTreeMap;

use fsm_actors::catalog::ObjectName;
use fsm_actors::fact::{Ack, StateDigest};
use fsm_actors::publish::Followed;
use fsm_actors::{Core, Fact};
use fsm_proxy_config::ConfigSet;
use fsm_store::{Record, Seq, Timestamp, TraceContext};

/// The same history with what it lacks: every proxy acknowledges every version, and every hundredth version is followed by the state
/// digests. `batches` gives the sizes of the commits, again and again.
pub fn with_proofs(records: &[Record], batches: &[usize]) -> Vec<Record> {
    let mut log = Log::default();
    let mut proxies: BTreeMap<ObjectName, ConfigSet> = BTreeMap::new();
    let mut core = Core::new(Followed::Everybody);
    let mut rest = records;
    for (version, size) in batches.iter().cycle().enumerate() {
        if rest.is_empty() {
            break;
        }
        let (batch, after) = rest.split_at((*size).clamp(1, rest.len()));
        rest = after;
        let start = log.records.len();
        batch.iter().for_each(|record| log.push(record.time, record.entry.clone()));
        let updates = core.apply(&log.records[start..]);
        let seq = core.seq();
        let time = log.records.last().map_or(Timestamp(0), |record| record.time);

        let start = log.records.len();
        for update in updates {
            let config = proxies.entry(update.proxy.clone()).or_default();
            config.apply(&update.update);
            let ack = Ack { proxy: update.proxy, seq, digest: config.digest() };
            log.push(time, Fact::Ack(ack).to_entry(TraceContext::default()));
        }
        proxies.retain(|proxy, _| core.config_of(proxy).is_some());
        if version % 100 == 0 {
            let digests = core.digests().into_iter().map(|(machine, digest)| (machine, digest.to_string())).collect();
            log.push(time, Fact::StateDigest(StateDigest { seq, digests }).to_entry(TraceContext::default()));
        }
        let updates = core.apply(&log.records[start..]);
        assert!(updates.is_empty(), "acknowledgements and digests tell nobody anything");
    }
    log.records
}

#[derive(Default)]
struct Log {
    records: Vec<Record>,
}

impl Log {
    fn push(&mut self, time: Timestamp, entry: fsm_store::Entry) {
        let seq = Seq(self.records.len() as u64 + 1);
        self.records.push(Record { seq, time, entry });
    }
}
