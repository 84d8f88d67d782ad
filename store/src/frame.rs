//! A frame: the records of one commit as they are stored. `docs/log-format.md` says the same for readers that are not this program.

mod body;
mod header;
mod packing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use header::{FORMAT, FrameHeader};
pub(crate) use header::{HEADER_BYTES, MAGIC};

use crate::{Record, Seq};

/// The most that the records of one frame may take before compression. Bounds what a reader has to allocate.
pub const MAX_BODY_BYTES: u64 = 64 << 20;

/// More than any frame or other stored thing can take.
pub(crate) const MAX_FRAME_BYTES: u64 = 2 * MAX_BODY_BYTES;

/// SHA-256 of a whole stored frame; all zero stands for "no frame before this one".
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct FrameHash(pub [u8; 32]);

impl FrameHash {
    /// The hash of a frame as stored.
    pub fn of(frame: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, frame);
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }
}

impl fmt::Display for FrameHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FrameHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameHash({self})")
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("it is {found} bytes long and a frame of this kind has {expected}")]
    Length { found: usize, expected: usize },
    #[error("it does not begin with \"FSMF\"")]
    Magic,
    #[error("it has format {found}, and this program knows formats up to {FORMAT}")]
    Newer { found: u16 },
    #[error("its checksum is {found:08x} and should be {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("its header contradicts itself: {0}")]
    Header(&'static str),
    #[error("its body can't be unpacked: {0}")]
    Compression(String),
    #[error("its records can't be decoded: {0}")]
    Records(String),
    #[error("its records take {bytes} bytes, more than {MAX_BODY_BYTES}")]
    TooLarge { bytes: u64 },
}

/// Packs records into a frame. They must be in order, adjacent in seq, and at least one.
pub fn encode(records: &[Record], previous: FrameHash, after_loss: bool) -> Result<Vec<u8>, FrameError> {
    let (first, last) = match records {
        [] => return Err(FrameError::Header("it has no records")),
        [only] => (only, only),
        [first, .., last] => (first, last),
    };
    let body = body::encode(records, first.time)?;
    if body.len() as u64 > MAX_BODY_BYTES {
        return Err(FrameError::TooLarge { bytes: body.len() as u64 });
    }
    let packed = packing::pack(&body).map_err(|error| FrameError::Compression(error.to_string()))?;
    let header = FrameHeader {
        after_loss,
        first_seq: first.seq,
        count: records.len() as u32,
        first_time: first.time,
        last_time: last.time,
        body_bytes: body.len() as u32,
        packed_bytes: packed.len() as u32,
        previous,
    };
    Ok(header.seal(&packed))
}

/// Unpacks a frame, after checking all of it.
pub fn decode(frame: &[u8]) -> Result<(FrameHeader, Arc<[Record]>), FrameError> {
    let (header, packed) = FrameHeader::open(frame)?;
    let body = packing::unpack(packed, header.body_bytes as usize)
        .map_err(|error| FrameError::Compression(error.to_string()))?;
    if body.len() != header.body_bytes as usize {
        return Err(FrameError::Header("the body has another length than it says"));
    }
    let records = body::decode(&body.into(), &header)?;
    if records.last().map(|record| record.time) != Some(header.last_time) {
        return Err(FrameError::Header("the last record has another time than it says"));
    }
    Ok((header, records))
}

/// How many bytes an entry will take in a frame before compression, at most.
pub(crate) fn entry_bytes(entry: &crate::Entry) -> u64 {
    // Five lengths and a time of at most nine bytes each, and the trace context.
    (entry.topic.len() + entry.key.len() + entry.body.len()) as u64 + 5 * 9 + 26
}

impl FrameHeader {
    /// The seq of the frame's last record.
    pub fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + u64::from(self.count) - 1)
    }
}
