//! Writing an export.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;

use super::{BLOCK_BYTES, END, ExportSummary, FORMAT, FRAME, MAGIC, REDACTED, SNAPSHOT};
use crate::frame::{self, FrameHash};
use crate::packed::pack;
use crate::{Error, Record, Seq};

/// Writes records and snapshots as an export. Without [`ExportWriter::finish`] the file counts as damaged.
pub struct ExportWriter<W> {
    out: W,
    path: PathBuf,
    hash: digest::Context,
    summary: ExportSummary,
    /// Hash of the last frame.
    previous: FrameHash,
}

impl<W: Write> ExportWriter<W> {
    /// Begins the file; `path` is for messages. `redacted` says that parts of the records were taken out on purpose.
    pub fn new(out: W, path: &Path, redacted: bool) -> Result<Self, Error> {
        let mut writer = Self {
            out,
            path: path.into(),
            hash: digest::Context::new(&digest::SHA256),
            summary: ExportSummary { redacted, ..ExportSummary::default() },
            previous: FrameHash::default(),
        };
        let flags = if redacted { REDACTED } else { 0 };
        writer.write(&[&MAGIC[..], &FORMAT.to_le_bytes(), &flags.to_le_bytes()].concat())?;
        Ok(writer)
    }

    /// A snapshot; all of them come before the records.
    ///
    /// # Panics
    /// If records were written before.
    pub fn snapshot(&mut self, name: &str, seq: Seq, bytes: &[u8]) -> Result<(), Error> {
        assert_eq!(self.summary.frames, 0, "snapshots come before records");
        let packed = pack(bytes).map_err(|error| Error::io(format!("pack the snapshot {name:?}"), error))?;
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        let name = &name.as_bytes()[..usize::from(length)];
        self.block(SNAPSHOT, &[&length.to_le_bytes()[..], name, &seq.0.to_le_bytes(), &packed].concat())?;
        self.summary.snapshots += 1;
        Ok(())
    }

    /// Records that follow the last ones; they become one frame. Seqs may be missing in between only where a log has none.
    pub fn records(&mut self, records: &[Record]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        let after_loss = self.summary.records > 0 && first.seq != self.summary.last.next();
        let frame = frame::encode(records, self.previous, after_loss).map_err(|error| Error::ExportDamaged {
            path: self.path.clone(),
            why: format!("seq {} to {} make no frame: {error}", first.seq, last.seq),
            kept: self.summary.last,
        })?;
        self.block(FRAME, &frame)?;
        self.previous = FrameHash::of(&frame);
        if self.summary.records == 0 {
            (self.summary.first, self.summary.first_time) = (first.seq, first.time);
        }
        (self.summary.last, self.summary.last_time) = (last.seq, last.time);
        self.summary.records += records.len() as u64;
        self.summary.frames += 1;
        Ok(())
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<(W, ExportSummary), Error> {
        let mut end: Vec<u8> = self.summary.numbers().iter().flat_map(|number| number.to_le_bytes()).collect();
        let length = (end.len() + digest::SHA256_OUTPUT_LEN) as u32;
        self.write(&block_head(END, length))?;
        self.write(&end)?;
        end.clear();
        end.extend_from_slice(self.hash.clone().finish().as_ref());
        self.write(&end)?;
        let failed = |error| Error::Io { action: format!("write {}", self.path.display()), source: Arc::new(error) };
        self.out.flush().map_err(failed)?;
        Ok((self.out, self.summary))
    }

    fn block(&mut self, kind: u8, content: &[u8]) -> Result<(), Error> {
        self.write(&block_head(kind, content.len() as u32))?;
        self.write(content)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(|error| Error::io(format!("write {}", self.path.display()), error))
    }
}

fn block_head(kind: u8, length: u32) -> [u8; BLOCK_BYTES] {
    let mut head = [0; BLOCK_BYTES];
    head[0] = kind;
    head[4..].copy_from_slice(&length.to_le_bytes());
    head
}
