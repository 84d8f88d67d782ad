//! All records of a history, compressed: a long one would not fit into memory as it is.

use anyhow::Context;
use fsm_store::Record;

use crate::log::{json_line, parse_line};

/// Records on one reel.
const LENGTH: usize = 256;
const COMPRESSION_LEVEL: i32 = 1;

/// Records by their index, from 0. The reel that was looked at last is kept unpacked.
#[derive(Default)]
pub(super) struct Reels {
    packed: Vec<Vec<u8>>,
    /// What does not fill a reel yet.
    filling: Vec<Record>,
    unpacked: Option<(usize, Vec<Record>)>,
}

impl Reels {
    pub(super) fn push(&mut self, record: Record) -> anyhow::Result<()> {
        self.filling.push(record);
        if self.filling.len() == LENGTH {
            let lines = self.filling.drain(..).map(|record| json_line(&record)).collect::<Result<Vec<_>, _>>()?;
            self.packed.push(zstd::encode_all(lines.join("\n").as_bytes(), COMPRESSION_LEVEL)?);
        }
        Ok(())
    }

    /// The record with this index.
    pub(super) fn get(&mut self, index: usize) -> anyhow::Result<&Record> {
        let (reel, place) = (index / LENGTH, index % LENGTH);
        let none = || format!("there is no record with index {index}");
        let Some(packed) = self.packed.get(reel) else { return self.filling.get(place).with_context(none) };
        if self.unpacked.as_ref().is_none_or(|(number, _)| *number != reel) {
            let lines = String::from_utf8(zstd::decode_all(packed.as_slice())?)?;
            self.unpacked = Some((reel, lines.lines().map(parse_line).collect::<Result<_, _>>()?));
        }
        self.unpacked.as_ref().and_then(|(_, records)| records.get(place)).with_context(none)
    }
}

#[cfg(test)]
mod tests {
    use fsm_store::{Entry, Seq, Timestamp, TraceContext};

    use super::*;

    #[test]
    fn records_come_back_in_any_order() {
        let record = |index: usize| Record {
            seq: Seq(index as u64 + 1),
            time: Timestamp(index as u64 * 7),
            entry: Entry {
                topic: "object".into(),
                key: format!("v1/Pod shop/web-{index}").into(),
                body: format!("{{\"text\":\"line\\nbreak {index}\"}}").into(),
                trace: TraceContext { trace_id: [index as u8; 16], ..TraceContext::default() },
            },
        };
        let mut reels = Reels::default();
        let count = 2 * LENGTH + 10;
        (0..count).for_each(|index| reels.push(record(index)).unwrap());
        for index in [0, count - 1, LENGTH, LENGTH - 1, 2 * LENGTH - 1, 2 * LENGTH, 5] {
            assert_eq!(reels.get(index).unwrap(), &record(index), "{index}");
        }
        assert!(reels.get(count).is_err());
    }
}
