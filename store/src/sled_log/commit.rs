//! Group commit: one thread takes everything that waits, makes one frame of it, and answers all once it is durable.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::BoxFuture;

use super::durable::Durable;
use super::head::Head;
use super::store::Store;
use crate::frame::{self, FrameHash, MAX_BODY_BYTES, entry_bytes};
use crate::options::Clock;
use crate::{Entry, Error, Record, Seq, Timestamp};

/// A commit takes no more appends once its records have this size. Compressed that is usually less than half of one of the storage
/// engine's segments (512 KiB). A commit then crosses at most one segment's end, and the engine reuses a segment only two segments
/// after its replacement: by then the replacement was synced with an earlier commit, where durability asks for that.
const COMMIT_BYTES: u64 = 1 << 20;

/// The committer's handle. Dropping it commits what was handed in, and ends the thread.
#[derive(Debug)]
pub(super) struct Committer {
    dir: PathBuf,
    appends: Option<Sender<Append>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Append {
    entries: Vec<Entry>,
    answer: oneshot::Sender<Result<Seq, Error>>,
}

/// Where the next frame goes.
#[derive(Debug)]
pub(super) struct End {
    /// The last seq that was ever given.
    pub(super) given: Seq,
    /// Whether the record with that seq is stored, or was lost.
    pub(super) after_loss: bool,
    /// Time of the last record.
    pub(super) time: Timestamp,
    /// Hash of the last frame.
    pub(super) hash: FrameHash,
}

impl Committer {
    /// `refusal` makes it answer every append with that error.
    pub(super) fn start(
        store: Arc<Store>,
        end: End,
        durable: Durable,
        clock: Clock,
        refusal: Option<String>,
    ) -> Result<Self, Error> {
        let dir = store.dir.clone();
        let (sender, receiver) = channel();
        let work = Work { store, end, durable, clock, refusal };
        let thread = thread::Builder::new()
            .name("log-committer".into())
            .spawn(move || work.run(&receiver))
            .map_err(|error| Error::io("start the committer's thread", error))?;
        Ok(Self { dir, appends: Some(sender), thread: Some(thread) })
    }

    pub(super) fn append(&self, entries: Vec<Entry>) -> BoxFuture<'static, Result<Seq, Error>> {
        let (answer, answered) = oneshot::channel();
        if let Some(appends) = &self.appends {
            // If the committer is gone, `answer` is dropped with the append, and the future below says so.
            let _ = appends.send(Append { entries, answer });
        }
        let dir = self.dir.clone();
        async move { answered.await.unwrap_or(Err(Error::Closed { dir })) }.boxed()
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.appends = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(dir = %self.dir.display(), "the log's committer panicked");
        }
    }
}

struct Work {
    store: Arc<Store>,
    end: End,
    durable: Durable,
    clock: Clock,
    /// Why nothing is appended any more.
    refusal: Option<String>,
}

impl Work {
    fn run(mut self, appends: &Receiver<Append>) {
        let mut left_over = None;
        while let Some(first) = left_over.take().or_else(|| appends.recv().ok()) {
            let mut group = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(append) = next.take().or_else(|| appends.try_recv().ok()) {
                let size = append.entries.iter().map(entry_bytes).sum::<u64>();
                if size > MAX_BODY_BYTES {
                    let entries = append.entries.len();
                    let _ = append.answer.send(Err(Error::TooLarge { entries, bytes: size, max: MAX_BODY_BYTES }));
                } else if bytes > 0 && bytes + size > COMMIT_BYTES {
                    left_over = Some(append);
                    break;
                } else {
                    bytes += size;
                    group.push(append);
                }
            }
            self.answer(group);
        }
    }

    fn answer(&mut self, mut group: Vec<Append>) {
        let before = self.store.last();
        let mut last = before;
        let mut records = Vec::with_capacity(group.iter().map(|append| append.entries.len()).sum());
        let mut ends = Vec::with_capacity(group.len());
        if self.refusal.is_none() {
            let time = self.clock.now().max(self.end.time);
            let mut seq = self.end.given;
            for append in &mut group {
                for entry in mem::take(&mut append.entries) {
                    seq = seq.next();
                    last = seq;
                    records.push(Record { seq, time, entry });
                }
                ends.push(last);
            }
            if let Err(error) = self.commit(records) {
                tracing::error!(%error, "a commit failed; the log takes no more records");
                self.refusal = Some(error.to_string());
            }
        }
        match &self.refusal {
            None => {
                for (append, end) in group.into_iter().zip(ends) {
                    let _ = append.answer.send(Ok(end));
                }
            }
            Some(reason) => {
                for append in group {
                    let (dir, reason) = (self.store.dir.clone(), reason.clone());
                    let _ = append.answer.send(Err(Error::Stopped { dir, reason, last: before }));
                }
            }
        }
    }

    /// Stores the records as one frame, makes it durable, then lets readers see it.
    fn commit(&mut self, records: Vec<Record>) -> Result<(), Error> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        let (first, last, time) = (first.seq, last.seq, last.time);
        let frame = frame::encode(&records, self.end.hash, self.end.after_loss)
            .map_err(|error| self.store.frame_error(first, &error))?;
        let hash = FrameHash::of(&frame);
        self.store.put_frame(first, frame)?;
        self.durable.commit(&Head { stored: last, given: last, hash })?;
        self.end = End { given: last, after_loss: false, time, hash };
        self.store.publish(records.into());
        Ok(())
    }
}
