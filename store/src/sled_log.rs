//! The event log of one controller, in a directory of its own, stored with sled.
//!
//! ```text
//! FORMAT   says that this directory is an event log, and of which format
//! LOCK     locked by the process that uses it; holds its process id
//! HEAD     how far the log was acknowledged
//! sled/    the storage engine's files: frames by their first seq, snapshots, retention marks
//! aside/   damaged frames, or a damaged engine's files, that a repair moved out of the way
//! ```

mod commit;
mod durable;
mod engine;
mod head;
mod import;
mod open;
mod place;
mod read;
mod repair;
mod retention;
mod salvage;
mod store;
#[cfg(test)]
mod tests;
mod verify;

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;

use self::commit::Committer;
use self::store::Store;
pub use self::verify::{Gap, LogSummary};
use crate::{Entry, Error, EventLog, ExportFile, Options, Records, Retention, Seq, Snapshot, Timestamp};

/// An [`EventLog`] in a directory. One process can have it open at a time.
///
/// Dropping it waits until what was handed in is committed. Streams of [`tail`](EventLog::tail) then end; a stream of
/// [`read`](EventLog::read) keeps the directory in use until it ends or is dropped.
///
/// The futures and streams it gives want to be polled within a tokio runtime.
#[derive(Debug)]
pub struct SledLog {
    /// Dropped first: this ends the committer.
    committer: Committer,
    store: Arc<Store>,
}

impl SledLog {
    /// Opens the log in a directory, and checks its end: that the last frame is whole, continues the one before it, and that nothing
    /// that was acknowledged is missing.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        open::open(dir.as_ref(), options)
    }

    /// Makes a new log of an export: the same records under the same seqs and times, the same snapshots, the same hashes.
    pub fn import(dir: impl AsRef<Path>, export: &ExportFile) -> Result<(), Error> {
        import::import(dir.as_ref(), export)
    }

    /// Walks all frames from the oldest to the last: checksums, order, hash chain. `each` sees every frame that is intact.
    ///
    /// Damage is part of the summary, not an error; an error means that the walk itself could not go on. Blocks while it reads.
    pub fn verify(&self, each: impl FnMut(&crate::FrameHeader)) -> Result<LogSummary, Error> {
        self.store.walk(each)
    }

    /// The directory of the log.
    pub fn dir(&self) -> &Path {
        &self.store.dir
    }

    /// Bytes the log takes on disk, with what the storage engine keeps beside the frames.
    pub fn stored_bytes(&self) -> Result<u64, Error> {
        self.store.stored_bytes()
    }

    /// What is wrong with the end of the log, if it was opened in spite of that.
    pub fn damage(&self) -> Option<&Error> {
        self.store.damage.as_ref()
    }
}

impl EventLog for SledLog {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<'static, Result<Seq, Error>> {
        self.committer.append(entries)
    }

    fn read(&self, from: Seq) -> Records {
        read::read(&self.store, from)
    }

    fn tail(&self, from: Seq) -> Records {
        read::tail(&self.store, from)
    }

    fn at(&self, time: Timestamp) -> BoxFuture<'static, Result<Seq, Error>> {
        Store::in_background(&self.store, move |store| store.at(time))
    }

    fn last(&self) -> Seq {
        self.store.last()
    }

    fn first(&self) -> Seq {
        self.store.first()
    }

    fn snapshot(&self, name: &str, seq: Seq, bytes: Vec<u8>) -> BoxFuture<'static, Result<(), Error>> {
        let name = name.to_owned();
        Store::in_background(&self.store, move |store| store.put_snapshot(&name, seq, &bytes))
    }

    fn latest_snapshot(&self, name: &str, at_or_before: Seq) -> BoxFuture<'static, Result<Option<Snapshot>, Error>> {
        let name = name.to_owned();
        Store::in_background(&self.store, move |store| store.latest_snapshot(&name, at_or_before))
    }

    fn compact(&self, before: Seq) -> BoxFuture<'static, Result<Seq, Error>> {
        Store::in_background(&self.store, move |store| store.compact(before))
    }

    fn retain(&self, retention: Retention, now: Timestamp) -> BoxFuture<'static, Result<Seq, Error>> {
        Store::in_background(&self.store, move |store| store.retain(retention, now))
    }
}
