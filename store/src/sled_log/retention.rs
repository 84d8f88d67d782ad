//! Snapshots, and dropping what they make superfluous.

use std::collections::BTreeMap;

use super::engine::engine;
use super::store::Store;
use crate::frame::FrameHash;
use crate::packed::{pack, unpack};
use crate::{Error, Retention, Seq, Snapshot, Timestamp};

impl Store {
    pub(super) fn put_snapshot(&self, name: &str, seq: Seq, bytes: &[u8]) -> Result<(), Error> {
        let value = pack(bytes).map_err(|error| Error::io(format!("pack the snapshot {name:?}"), error))?;
        self.put_packed_snapshot(name, seq, value)?;
        // Before anything that it makes superfluous is dropped.
        self.make_durable()
    }

    pub(super) fn put_packed_snapshot(&self, name: &str, seq: Seq, value: Vec<u8>) -> Result<(), Error> {
        engine(&self.dir, "store a snapshot", || self.snapshots.insert(key(name, seq), value))?;
        Ok(())
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
            self.remove_frame(&frame)?;
        }
        self.drop_snapshots(|name, seq| bases.get(name).is_some_and(|base| seq < *base))?;
        self.make_durable()?;
        Ok(self.first())
    }

    pub(super) fn retain(&self, retention: Retention, now: Timestamp) -> Result<Seq, Error> {
        let mut before = self.first();
        if let Some(age) = retention.age {
            let oldest = now.0.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
            before = before.max(self.at(Timestamp(oldest))?.next());
        }
        if let Some(bytes) = retention.bytes {
            before = before.max(self.newest_of(bytes)?);
        }
        if before <= self.first() {
            return Ok(self.first());
        }
        match self.compact(before) {
            Err(Error::NoSnapshot { .. }) => Ok(self.first()),
            done => done,
        }
    }

    /// The oldest seq such that the frames from there on have at most so many bytes.
    fn newest_of(&self, bytes: u64) -> Result<Seq, Error> {
        let mut total = self.frame_bytes()?;
        let mut first = self.first();
        while total > bytes
            && let Some(frame) = self.frame_at_or_after(first)?
        {
            total = total.saturating_sub(frame.bytes.len() as u64);
            let header = frame.header().map_err(|error| self.frame_error(frame.first_seq, &error))?;
            first = header.last_seq().next();
        }
        Ok(first)
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
