//! Time travel: the state machines on the past, and proof that they come to the same.
//!
//! A controller records digests of its state machines now and then, and what each proxy acknowledged. [`verify`] computes
//! all of that again from the records before, and compares.

pub mod inputs;
pub mod managers;
pub mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fsm_proxy_config::Digest;
use fsm_store::{Record, Seq};

use crate::catalog::ObjectName;
use crate::core::{Core, Panicked, Skips};
use crate::fact::{Ack, Fact, StateDigest};

/// What the records say that the state at earlier seqs was.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    states: BTreeMap<Seq, Vec<StateDigest>>,
    configs: BTreeMap<Seq, BTreeSet<(ObjectName, Digest)>>,
    differences: Vec<Difference>,
}

/// Recomputes history record by record, and compares it with what is expected.
#[derive(Clone, Debug)]
pub struct Verifier {
    core: Core,
    expected: Expected,
    report: VerifyReport,
}

/// The outcome of recomputing history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The record after which it began, with a snapshot; zero if that was the beginning of history.
    pub from: Seq,
    /// Records that were applied.
    pub records: u64,
    /// Recorded digests of state machines that were compared.
    pub states_checked: u64,
    /// Acknowledged configurations (a proxy and a version) that were compared.
    pub versions_checked: u64,
    /// What came out different.
    pub differences: Vec<Difference>,
}

/// Something that was recorded and does not come out again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A state machine was in another state.
    State { seq: Seq, machine: String, recorded: String, recomputed: Option<String> },
    /// A proxy acknowledged another configuration.
    Config { seq: Seq, proxy: ObjectName, acknowledged: Digest, recomputed: Option<Digest> },
    /// A record refers to a seq that is not before it.
    Unknown { seq: Seq, named_by: Seq },
}

/// Recomputes all of a history that begins with the first record, and compares every recorded state digest and every
/// acknowledged configuration.
pub fn verify(records: &[Record]) -> VerifyReport {
    let mut expected = Expected::default();
    records.iter().for_each(|record| expected.note(record));
    let mut skips = Skips::new();
    loop {
        let mut verifier = Verifier::new(Core::leaving_out(skips.clone()), expected.clone());
        match records.iter().try_for_each(|record| verifier.apply(record)) {
            Ok(()) => return verifier.finish(),
            Err(Panicked { machine, seq }) => skips.insert((machine, seq)),
        };
    }
}

impl Expected {
    /// Takes note of what a record says of the past. All records have to be noted before the first is applied.
    pub fn note(&mut self, record: &Record) {
        if !matches!(&*record.entry.topic, "ack" | "digest") {
            return;
        }
        let (seq, known) = match Fact::parse(&record.entry) {
            Ok(Fact::Ack(Ack { proxy, seq, digest })) => {
                let known = seq < record.seq;
                if known {
                    self.configs.entry(seq).or_default().insert((proxy, digest));
                }
                (seq, known)
            }
            Ok(Fact::StateDigest(state)) => {
                let (seq, known) = (state.seq, state.seq < record.seq);
                if known {
                    self.states.entry(seq).or_default().push(state);
                }
                (seq, known)
            }
            // Records that can't be read change nothing, and say nothing.
            _ => return,
        };
        if !known {
            self.differences.push(Difference::Unknown { seq, named_by: record.seq });
        }
    }
}

impl Verifier {
    /// Begins with the state `core`; what is expected before cannot be compared. It has to leave out the records that made state machines
    /// panic, as the controller leaves them out.
    pub fn new(core: Core, mut expected: Expected) -> Self {
        let from = core.seq();
        expected.states = expected.states.split_off(&from);
        expected.configs = expected.configs.split_off(&from);
        let differences = std::mem::take(&mut expected.differences);
        Self { core, expected, report: VerifyReport { from, differences, ..VerifyReport::default() } }
    }

    /// Applies the next record. After a panic of a state machine begin again, with that record among those that are left out.
    pub fn apply(&mut self, record: &Record) -> Result<(), Panicked> {
        // After a repair there are seqs without records; what is expected there can be compared just before the next one.
        self.check_before(record.seq);
        self.core.try_apply_one(record)?;
        self.report.records += 1;
        Ok(())
    }

    /// Compares what is expected after the last record, and gives the outcome.
    pub fn finish(mut self) -> VerifyReport {
        self.check_before(Seq(u64::MAX));
        self.report
    }

    fn check_before(&mut self, next: Seq) {
        while let Some(entry) = self.expected.states.first_entry().filter(|entry| *entry.key() < next) {
            entry.remove().iter().for_each(|state| self.check_state(state));
        }
        while let Some(entry) = self.expected.configs.first_entry().filter(|entry| *entry.key() < next) {
            let (seq, configs) = entry.remove_entry();
            configs.into_iter().for_each(|(proxy, digest)| self.check_config(seq, proxy, digest));
        }
    }

    fn check_state(&mut self, state: &StateDigest) {
        self.report.states_checked += 1;
        self.core.settle_digests();
        let recomputed = self.core.digests();
        for (machine, recorded) in &state.digests {
            let recomputed = recomputed.get(machine).map(Digest::to_string);
            if recomputed.as_ref() != Some(recorded) {
                let (machine, recorded) = (machine.clone(), recorded.clone());
                self.report.differences.push(Difference::State { seq: state.seq, machine, recorded, recomputed });
            }
        }
    }

    fn check_config(&mut self, seq: Seq, proxy: ObjectName, acknowledged: Digest) {
        self.report.versions_checked += 1;
        let recomputed = self.core.config_of(&proxy).map(|config| config.digest());
        if recomputed != Some(acknowledged) {
            self.report.differences.push(Difference::Config { seq, proxy, acknowledged, recomputed });
        }
    }
}

impl VerifyReport {
    /// Everything came out as it was recorded.
    pub fn identical(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |digest: Option<String>| digest.unwrap_or_else(|| "none".into());
        match self {
            Self::State { seq, machine, recorded, recomputed } => write!(
                f,
                "the state of {machine} at seq {seq} was recorded as {recorded} and is recomputed as {}",
                or_none(recomputed.clone())
            ),
            Self::Config { seq, proxy, acknowledged, recomputed } => write!(
                f,
                "the configuration of {proxy} at seq {seq} was acknowledged as {acknowledged} and is recomputed as {}",
                or_none(recomputed.map(|digest| digest.to_string()))
            ),
            Self::Unknown { seq, named_by } => {
                write!(f, "record {named_by} speaks of seq {seq}, which is not before it")
            }
        }
    }
}
