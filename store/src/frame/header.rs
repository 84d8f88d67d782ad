//! The fixed part at the beginning of every frame.

use super::{FrameError, FrameHash, MAX_BODY_BYTES};
use crate::{Seq, Timestamp};

/// The format that this program writes, and the newest it reads.
///
/// | format | what it changed |
/// | --- | --- |
/// | 1 | |
/// | 2 | the body may be compressed with a dictionary |
pub const FORMAT: u16 = 2;

/// Length of the header of all formats so far.
pub(crate) const HEADER_BYTES: usize = 80;

pub(crate) const MAGIC: &[u8; 4] = b"FSMF";
/// Where in the header the length of what follows it is.
const PACKED_BYTES_AT: usize = 40;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;
const AFTER_LOSS: u16 = 1;

/// What a frame says of itself. Integers are little-endian; offsets are in `docs/log-format.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Records between the previous frame and this one were lost or put aside by a repair.
    pub after_loss: bool,
    pub first_seq: Seq,
    /// Number of records, at least one; their seqs are adjacent.
    pub count: u32,
    pub first_time: Timestamp,
    pub last_time: Timestamp,
    /// Length of the records before compression.
    pub body_bytes: u32,
    /// Length of what follows the header.
    pub packed_bytes: u32,
    /// Hash of the frame before this one; zero in the first.
    pub previous: FrameHash,
}

impl FrameHeader {
    /// Puts header, checksum and packed body together.
    pub(super) fn seal(&self, packed: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + packed.len());
        frame.extend_from_slice(MAGIC);
        frame.extend_from_slice(&FORMAT.to_le_bytes());
        frame.extend_from_slice(&(if self.after_loss { AFTER_LOSS } else { 0 }).to_le_bytes());
        frame.extend_from_slice(&self.first_seq.0.to_le_bytes());
        frame.extend_from_slice(&self.first_time.0.to_le_bytes());
        frame.extend_from_slice(&self.last_time.0.to_le_bytes());
        frame.extend_from_slice(&self.count.to_le_bytes());
        frame.extend_from_slice(&self.body_bytes.to_le_bytes());
        frame.extend_from_slice(&self.packed_bytes.to_le_bytes());
        frame.extend_from_slice(&self.previous.0);
        debug_assert_eq!(frame.len(), CHECKSUM_AT, "the header has a fixed length");
        let checksum = checksum(&frame, packed);
        frame.extend_from_slice(&checksum.to_le_bytes());
        frame.extend_from_slice(packed);
        frame
    }

    /// Where in `bytes` a frame may begin.
    pub(crate) fn beginnings(bytes: &[u8]) -> impl Iterator<Item = usize> {
        bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| window == MAGIC).map(|(at, _)| at)
    }

    /// How long the frame is that begins like this, if it is one.
    pub(crate) fn frame_bytes(head: &[u8; HEADER_BYTES]) -> usize {
        let mut field = [0; 4];
        field.copy_from_slice(&head[PACKED_BYTES_AT..PACKED_BYTES_AT + 4]);
        HEADER_BYTES + u32::from_le_bytes(field) as usize
    }

    /// Reads and checks the header; gives the packed body too. The checksum covers both.
    pub fn open(frame: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        let short = FrameError::Length { found: frame.len(), expected: HEADER_BYTES };
        let mut rest = frame;
        if take::<4>(&mut rest).ok_or(short.clone())? != *MAGIC {
            return Err(FrameError::Magic);
        }
        let format = u16::from_le_bytes(take(&mut rest).ok_or(short.clone())?);
        if format > FORMAT {
            return Err(FrameError::Newer { found: format });
        }
        let (head, packed) = frame.split_at_checked(HEADER_BYTES).ok_or(short.clone())?;
        let flags = u16::from_le_bytes(take(&mut rest).ok_or(short.clone())?);
        let mut u64_field = || take(&mut rest).map(u64::from_le_bytes).ok_or(short.clone());
        let (first_seq, first_time, last_time) = (u64_field()?, u64_field()?, u64_field()?);
        let mut u32_field = || take(&mut rest).map(u32::from_le_bytes).ok_or(short.clone());
        let (count, body_bytes, packed_bytes) = (u32_field()?, u32_field()?, u32_field()?);
        let previous = FrameHash(take(&mut rest).ok_or(short.clone())?);
        let expected = u32::from_le_bytes(take(&mut rest).ok_or(short)?);

        let length = HEADER_BYTES + packed_bytes as usize;
        if frame.len() != length {
            return Err(FrameError::Length { found: frame.len(), expected: length });
        }
        let found = checksum(&head[..CHECKSUM_AT], packed);
        if found != expected {
            return Err(FrameError::Checksum { found, expected });
        }
        let header = Self {
            after_loss: flags & AFTER_LOSS != 0,
            first_seq: Seq(first_seq),
            count,
            first_time: Timestamp(first_time),
            last_time: Timestamp(last_time),
            body_bytes,
            packed_bytes,
            previous,
        };
        header.check(format, flags)?;
        Ok((header, packed))
    }

    fn check(&self, format: u16, flags: u16) -> Result<(), FrameError> {
        let contradiction = if format == 0 {
            "there is no format 0"
        } else if flags & !AFTER_LOSS != 0 {
            "it has flags that this format does not know"
        } else if self.count == 0 {
            "it has no records"
        } else if self.first_seq == Seq::ZERO {
            "there is no record 0"
        } else if self.first_seq.0.checked_add(u64::from(self.count)).is_none() {
            "its seqs are beyond 64 bits"
        } else if self.first_time > self.last_time {
            "its times go back"
        } else if u64::from(self.body_bytes) > MAX_BODY_BYTES {
            "its body is larger than a frame may be"
        } else {
            return Ok(());
        };
        Err(FrameError::Header(contradiction))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*field)
}

fn checksum(head: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(packed);
    hasher.finalize()
}
