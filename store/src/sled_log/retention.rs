//! Snapshots, and dropping what they make superfluous.

use std::collections::BTreeMap;

use super::engine::engine;
use super::store::Store;
use crate::frame::FrameHash;
use crate::{Error, Seq, Snapshot};

const MAGIC: &[u8; 4] = b"FSMS";
const FORMAT: u16 = 1;
/// Magic, format, two zero bytes, length before compression, checksum of all that follows.
const HEADER_BYTES: usize = 4 + 2 + 2 + 8 + 4;
const COMPRESSION_LEVEL: i32 = 1;

impl Store {
    pub(super) fn put_snapshot(&self, name: &str, seq: Seq, bytes: &[u8]) -> Result<(), Error> {
        let value = pack(bytes).map_err(|error| Error::io(format!("pack the snapshot {name:?}"), error))?;
        engine(&self.dir, "store a snapshot", || self.snapshots.insert(key(name, seq), value))?;
        self.flush()
    }

    pub(super) fn latest_snapshot(&self, name: &str, at_or_before: Seq) -> Result<Option<Snapshot>, Error> {
        let stored = self.snapshots.range(key(name, Seq::ZERO)..=key(name, at_or_before)).rev();
        for entry in stored {
            let (key, value) = engine(&self.dir, "read a snapshot", || entry)?;
            let Some((_, seq)) = parse_key(&key) else { continue };
            match unpack(&value) {
                Some(bytes) => return Ok(Some(Snapshot { seq, bytes })),
                // An older one and more records give the same state.
                None => tracing::warn!(name, %seq, "a snapshot is damaged; using an older one"),
            }
        }
        Ok(None)
    }

    pub(super) fn compact(&self, before: Seq) -> Result<Seq, Error> {
        let before = before.min(self.last().next());
        let bases = self.bases(before)?;
        if bases.is_empty() {
            return Err(Error::NoSnapshot { before });
        }
        // A name without a snapshot before `before` has the base "nothing": it needs every record.
        let needed = bases.values().map(|base| base.next()).min().unwrap_or(Seq(1));
        let Some(kept) = self.frame_at_or_before(needed)? else { return Ok(self.first()) };
        if kept.first_seq <= self.first() {
            return Ok(self.first());
        }
        let before_kept = Seq(kept.first_seq.0 - 1);
        let hash = self.frame_at_or_before(before_kept)?.map_or_else(FrameHash::default, |frame| frame.hash());
        // The mark goes first: what lies below it is no longer part of the log, removed or not.
        self.set_floor(kept.first_seq, hash)?;
        while let Some(frame) = self.frame_at_or_before(before_kept)? {
            self.remove_frame(frame.first_seq)?;
        }
        self.drop_snapshots(|name, seq| bases.get(name).is_some_and(|base| seq < *base))?;
        self.flush()?;
        Ok(self.first())
    }

    pub(super) fn drop_snapshots_after(&self, seq: Seq) -> Result<(), Error> {
        self.drop_snapshots(|_, of| of > seq)
    }

    /// For every name the newest snapshot older than `before`, or [`Seq::ZERO`].
    fn bases(&self, before: Seq) -> Result<BTreeMap<String, Seq>, Error> {
        let mut bases = BTreeMap::new();
        for entry in self.snapshots.iter().keys() {
            let key = engine(&self.dir, "read its snapshots", || entry)?;
            let Some((name, seq)) = parse_key(&key) else { continue };
            let base = bases.entry(name.to_owned()).or_insert(Seq::ZERO);
            if seq < before {
                *base = seq.max(*base);
            }
        }
        Ok(bases)
    }

    fn drop_snapshots(&self, which: impl Fn(&str, Seq) -> bool) -> Result<(), Error> {
        for entry in self.snapshots.iter().keys() {
            let key = engine(&self.dir, "read its snapshots", || entry)?;
            if parse_key(&key).is_some_and(|(name, seq)| which(name, seq)) {
                engine(&self.dir, "remove a snapshot", || self.snapshots.remove(&key))?;
            }
        }
        Ok(())
    }
}

/// Length of the name, name, seq: big-endian, so that the snapshots of one name are adjacent and in order.
fn key(name: &str, seq: Seq) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name.as_bytes(), &seq.0.to_be_bytes()].concat()
}

fn parse_key(key: &[u8]) -> Option<(&str, Seq)> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    let (name, seq) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some((std::str::from_utf8(name).ok()?, Seq(u64::from_be_bytes(seq.try_into().ok()?))))
}

fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(bytes, COMPRESSION_LEVEL)?;
    let mut value = Vec::with_capacity(HEADER_BYTES + packed.len());
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(&FORMAT.to_le_bytes());
    value.extend_from_slice(&[0; 2]);
    value.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    value.extend_from_slice(&crc32fast::hash(&packed).to_le_bytes());
    value.extend_from_slice(&packed);
    Ok(value)
}

fn unpack(value: &[u8]) -> Option<Vec<u8>> {
    let (header, packed) = value.split_at_checked(HEADER_BYTES)?;
    let length = u64::from_le_bytes(header.get(8..16)?.try_into().ok()?);
    let checksum = u32::from_le_bytes(header.get(16..20)?.try_into().ok()?);
    if header.get(..4)? != MAGIC || header.get(4..6)? != FORMAT.to_le_bytes() || crc32fast::hash(packed) != checksum {
        return None;
    }
    let bytes = zstd::bulk::decompress(packed, usize::try_from(length).ok()?).ok()?;
    (bytes.len() as u64 == length).then_some(bytes)
}
