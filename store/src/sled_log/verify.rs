//! Walking the whole log and checking everything that can be checked.

use super::store::{Store, StoredFrame};
use crate::frame::{FrameError, FrameHash, FrameHeader};
use crate::{Damage, Error, Seq, Timestamp};

/// Seqs that were given but whose records were lost or put aside by a repair; inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub from: Seq,
    pub to: Seq,
}

/// What a walk through a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSummary {
    pub frames: u64,
    pub records: u64,
    /// Bytes of the frames, compressed.
    pub frame_bytes: u64,
    /// Bytes of the records before compression.
    pub record_bytes: u64,
    /// The oldest record that is kept; [`Seq::ZERO`] in an empty log, as are the next three.
    pub first: Seq,
    pub last: Seq,
    pub first_time: Timestamp,
    pub last_time: Timestamp,
    /// Hash of the last intact frame: who knows it can tell later that the history up to here was not changed.
    pub hash: FrameHash,
    /// Repaired losses.
    pub gaps: Vec<Gap>,
    pub damages: Vec<Damage>,
}

/// The place a frame has to continue from.
struct Link {
    next: Seq,
    hash: FrameHash,
    time: Timestamp,
    /// The frame before was damaged: there is nothing to compare this one with.
    unknown: bool,
}

impl Store {
    pub(super) fn walk(&self, mut each: impl FnMut(&FrameHeader)) -> Result<LogSummary, Error> {
        let mut summary = LogSummary::default();
        let (next, hash) = self.floor()?.unwrap_or((Seq(1), FrameHash::default()));
        let mut link = Link { next, hash, time: Timestamp(0), unknown: false };
        let mut at = next;
        while let Some(frame) = self.frame_at_or_after(at)? {
            at = frame.first_seq.next();
            match frame.decode() {
                Ok((header, _)) => {
                    summary.damages.extend(link.follow(&frame, &header, &mut summary.gaps));
                    summary.count(&frame, &header);
                    each(&header);
                }
                Err(FrameError::Newer { found }) => {
                    return Err(self.frame_error(frame.first_seq, &FrameError::Newer { found }));
                }
                Err(error) => {
                    summary.damages.push(Damage::Frame { first_seq: frame.first_seq, why: error.to_string() });
                    link.unknown = true;
                }
            }
        }
        if let Some(Error::Damaged { damage, .. }) = &self.damage
            && !summary.damages.contains(damage)
        {
            summary.damages.push(damage.clone());
        }
        summary.damages.sort_by_key(Damage::from);
        Ok(summary)
    }
}

impl Link {
    fn follow(&mut self, frame: &StoredFrame, header: &FrameHeader, gaps: &mut Vec<Gap>) -> Option<Damage> {
        let damage = if self.unknown { None } else { self.check(header, gaps) };
        *self = Self { next: header.last_seq().next(), hash: frame.hash(), time: header.last_time, unknown: false };
        damage
    }

    fn check(&self, header: &FrameHeader, gaps: &mut Vec<Gap>) -> Option<Damage> {
        let first_seq = header.first_seq;
        let broken = |why: String| Some(Damage::Chain { first_seq, why });
        if header.previous != self.hash {
            return broken(format!(
                "it follows a frame with hash {}, and the one before it has {}",
                header.previous, self.hash
            ));
        }
        if first_seq != self.next {
            if first_seq < self.next || !header.after_loss {
                return broken(format!("the records before it end with seq {}", self.next.0 - 1));
            }
            gaps.push(Gap { from: self.next, to: Seq(first_seq.0 - 1) });
        }
        if header.first_time < self.time {
            return broken("its records are older than those before it".into());
        }
        None
    }
}

impl LogSummary {
    fn count(&mut self, frame: &StoredFrame, header: &FrameHeader) {
        if self.frames == 0 {
            self.first = header.first_seq;
            self.first_time = header.first_time;
        }
        self.frames += 1;
        self.records += u64::from(header.count);
        self.frame_bytes += frame.bytes.len() as u64;
        self.record_bytes += u64::from(header.body_bytes);
        self.last = header.last_seq();
        self.last_time = header.last_time;
        self.hash = frame.hash();
    }
}
