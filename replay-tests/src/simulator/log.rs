//! The log: ordered records, snapshots, and a disk that may fail.

use fsm_actors::Core;
use fsm_actors::core::snapshot::{Restored, restore};
use fsm_store::{Entry, Record, Seq, Timestamp};

#[derive(Default)]
pub struct Log {
    /// All that ever was; what compaction dropped is still here, to compare with.
    pub records: Vec<Record>,
    /// The oldest seq that is kept.
    pub first: Seq,
    snapshots: Vec<Kept>,
}

/// A snapshot as the disk has it.
struct Kept {
    seq: Seq,
    bytes: Vec<u8>,
    damaged: bool,
}

impl Log {
    pub fn last(&self) -> Seq {
        self.records.last().map_or(Seq::ZERO, |record| record.seq)
    }

    /// One commit.
    pub fn store(&mut self, entries: impl IntoIterator<Item = Entry>, now: u64) -> &[Record] {
        let begin = self.records.len();
        for entry in entries {
            let seq = self.last().next();
            self.records.push(Record { seq, time: Timestamp(now), entry });
        }
        &self.records[begin..]
    }

    pub fn put_snapshot(&mut self, seq: Seq, bytes: Vec<u8>, damaged: bool) {
        self.snapshots.push(Kept { seq, bytes, damaged });
    }

    /// Drops what the newest good snapshot makes superfluous; whether there was anything to drop.
    pub fn compact(&mut self) -> bool {
        let good = self.snapshots.iter().rev().find(|kept| !kept.damaged);
        let Some(base) = good.map(|kept| kept.seq).filter(|base| base.next() > self.first) else { return false };
        self.first = base.next();
        self.snapshots.retain(|kept| kept.seq >= base);
        true
    }

    /// As a controller that starts: the newest good snapshot and the records after it. Sometimes it takes an older one.
    pub fn rebuild(&self, passed_over: usize) -> Result<Core, String> {
        let mut good = Vec::new();
        for Kept { seq, bytes, damaged } in self.snapshots.iter().rev() {
            match restore(bytes) {
                Ok(Restored { core, differing }) if differing.is_empty() => good.push(core),
                // Cut off at the end of a line, it can be read: what it comes to gives it away.
                Ok(_) if *damaged => {}
                Ok(Restored { differing, .. }) => {
                    return Err(format!("the snapshot of seq {seq} leads to another state of {differing:?}"));
                }
                Err(_) => {}
            }
        }
        let kept = good.len();
        let chosen = good.into_iter().nth(passed_over.min(kept.saturating_sub(1)));
        let mut core = match chosen {
            // Without compaction the whole history is an older one still.
            Some(_) if self.first == Seq::ZERO && passed_over >= kept => Core::default(),
            Some(core) => core,
            None if self.first == Seq::ZERO => Core::default(),
            None => return Err("compaction dropped what no snapshot holds".to_owned()),
        };
        for record in self.records.iter().filter(|record| record.seq > core.seq()).collect::<Vec<_>>() {
            core.apply_one(record);
        }
        Ok(core)
    }
}
