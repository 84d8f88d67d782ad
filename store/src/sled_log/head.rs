//! The `HEAD` file: how far the log was acknowledged. The storage engine drops a damaged end in silence; this notices.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Seq;
use crate::frame::FrameHash;

const MAGIC: &[u8; 4] = b"FSMH";
const FORMAT: u16 = 1;
const SLOT_BYTES: usize = 68;
/// Two slots in different sectors, written in turn: a torn write leaves the other one.
const SLOT_DISTANCE: u64 = 512;

/// How far the log was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The last record that is stored.
    pub(super) stored: Seq,
    /// The last seq that was ever given. Greater than `stored` only after a repair.
    pub(super) given: Seq,
    /// Hash of the frame that ends with `stored`.
    pub(super) hash: FrameHash,
}

/// The open `HEAD` file.
#[derive(Debug)]
pub(super) struct HeadFile {
    pub(super) path: PathBuf,
    file: File,
    generation: u64,
}

impl HeadFile {
    /// Opens the file, or makes an empty one; gives what it says, `None` if that can't be read.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Option<Head>)> {
        let path = dir.join("HEAD");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        let newest = [0, SLOT_DISTANCE].into_iter().filter_map(|at| read_slot(&file, at)).max_by_key(|(age, _)| *age);
        let generation = newest.map_or(0, |(generation, _)| generation);
        Ok((Self { path, file, generation }, newest.map(|(_, head)| head)))
    }

    pub(super) fn write(&mut self, head: &Head) -> io::Result<()> {
        let generation = self.generation + 1;
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.extend_from_slice(MAGIC);
        slot.extend_from_slice(&FORMAT.to_le_bytes());
        slot.extend_from_slice(&[0; 2]);
        slot.extend_from_slice(&generation.to_le_bytes());
        slot.extend_from_slice(&head.stored.0.to_le_bytes());
        slot.extend_from_slice(&head.given.0.to_le_bytes());
        slot.extend_from_slice(&head.hash.0);
        slot.extend_from_slice(&crc32fast::hash(&slot).to_le_bytes());
        self.file.write_all_at(&slot, (generation % 2) * SLOT_DISTANCE)?;
        self.generation = generation;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn read_slot(file: &File, at: u64) -> Option<(u64, Head)> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, at).ok()?;
    let (said, checksum) = slot.split_last_chunk::<4>()?;
    if said.get(..4)? != MAGIC || crc32fast::hash(said).to_le_bytes() != *checksum {
        return None;
    }
    let u64_at = |at: usize| Some(u64::from_le_bytes(said.get(at..at + 8)?.try_into().ok()?));
    let head =
        Head { stored: Seq(u64_at(16)?), given: Seq(u64_at(24)?), hash: FrameHash(said.get(32..64)?.try_into().ok()?) };
    Some((u64_at(8)?, head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64) -> Head {
        Head { stored: Seq(seq), given: Seq(seq), hash: FrameHash([seq as u8; 32]) }
    }

    #[test]
    fn the_last_head_written_is_the_one_read() {
        let dir = tempfile::tempdir().unwrap();
        for seq in 1..6 {
            let (mut file, before) = HeadFile::open(dir.path()).unwrap();
            assert_eq!(before, (seq > 1).then(|| head(seq - 1)));
            file.write(&head(seq)).unwrap();
        }
    }

    #[test]
    fn a_torn_write_leaves_the_head_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, _) = HeadFile::open(dir.path()).unwrap();
        file.write(&head(1)).unwrap();
        file.write(&head(2)).unwrap();
        let at = (file.generation % 2) * SLOT_DISTANCE;
        file.file.write_all_at(&[0xff; 20], at + 10).unwrap();
        assert_eq!(HeadFile::open(dir.path()).unwrap().1, Some(head(1)));
    }
}
