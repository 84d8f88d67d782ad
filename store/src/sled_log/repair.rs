//! Putting aside what is damaged, so that the log can go on.

use std::fs::{self, File};
use std::io::Write;

use super::head::Head;
use super::place::sync_dir;
use super::store::Store;
use crate::{Damage, Error, Seq};

/// Added to the last seq that is known when it isn't known how many were given: no seq may ever be given twice, because proxies
/// remember what they were told at which seq.
const UNKNOWN_LOSS: u64 = 1_000_000;

impl Store {
    /// Moves the first damaged frame and all after it to files, and gives what `HEAD` has to say afterwards.
    pub(super) fn put_aside(&self, said: Option<Head>) -> Result<Head, Error> {
        let summary = self.walk(|_| ())?;
        let cut = summary.damages.iter().map(Damage::from).min();
        let mut given = said.map_or(summary.last.0 + UNKNOWN_LOSS, |head| head.given.max(head.stored).0);
        given = given.max(summary.last.0);
        if let Some(cut) = cut {
            while let Some(frame) = self.frame_at_or_after(cut)? {
                let end = frame.header().map_or(frame.first_seq, |header| header.last_seq());
                given = given.max(end.0);
                self.write_aside(frame.first_seq, &frame.bytes)?;
                self.remove_frame(&frame)?;
            }
            self.drop_snapshots_after(Seq(cut.0 - 1))?;
            self.flush()?;
        }
        let mut head = Head { given: Seq(given), ..Head::default() };
        match self.frame_at_or_before(Seq(u64::MAX))? {
            Some(frame) => {
                head.hash = frame.hash();
                head.stored = frame.header().map_err(|error| self.frame_error(frame.first_seq, &error))?.last_seq();
            }
            None => {
                if let Some((first, hash)) = self.floor()? {
                    (head.stored, head.hash) = (Seq(first.0 - 1), hash);
                }
            }
        }
        tracing::warn!(dir = %self.dir.display(), kept = %head.stored, next = %head.given.next(), "put damaged frames aside");
        Ok(head)
    }

    fn write_aside(&self, first_seq: Seq, bytes: &[u8]) -> Result<(), Error> {
        let aside = self.dir.join("aside");
        let path = aside.join(format!("{:020}.frame", first_seq.0));
        let write = || {
            fs::create_dir_all(&aside)?;
            let mut file = File::create(&path)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            sync_dir(&aside)
        };
        write().map_err(|error| Error::io(format!("write {}", path.display()), error))
    }
}
