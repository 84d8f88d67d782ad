//! A stretch of history as one file that can be carried elsewhere. `docs/log-format.md` says how it looks.
//!
//! ```text
//! "FSMX", format, flags
//! blocks: snapshots first, then frames, in order
//! the last block: what the file holds, and the SHA-256 of everything before
//! ```

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::ExportFile;
pub use write::ExportWriter;

use crate::{Seq, Timestamp};

/// The format that this program writes, and the newest it reads.
const FORMAT: u16 = 1;
const MAGIC: &[u8; 4] = b"FSMX";
/// Magic, format, flags.
const HEADER_BYTES: usize = 8;
/// Flag bit 0: parts of the records were taken out on purpose.
const REDACTED: u16 = 1;
/// Kind (1 byte), three zero bytes, length of what follows.
const BLOCK_BYTES: usize = 8;

const FRAME: u8 = b'F';
/// Length of the name (2 bytes), name, seq, the snapshot as it is stored.
const SNAPSHOT: u8 = b'S';
/// The numbers of an [`ExportSummary`], then a SHA-256.
const END: u8 = b'E';

/// What an export holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportSummary {
    /// The first record; [`Seq::ZERO`] if there is none, as are the next three.
    pub first: Seq,
    pub last: Seq,
    pub first_time: Timestamp,
    pub last_time: Timestamp,
    pub records: u64,
    pub frames: u64,
    pub snapshots: u64,
    /// Parts of the records were taken out on purpose.
    pub redacted: bool,
}

impl ExportSummary {
    fn numbers(&self) -> [u64; 7] {
        let Self { first, last, first_time, last_time, records, frames, snapshots, redacted: _ } = *self;
        [first.0, last.0, first_time.0, last_time.0, records, frames, snapshots]
    }
}
