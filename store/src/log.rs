//! What every event log promises, whatever stores it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::{Entry, Error, Record, Seq, Timestamp};

/// Records that were committed together, in order of their seq; never empty.
pub type RecordBatch = Arc<[Record]>;

/// Batches of records in order. After an error the stream ends.
pub type Records = BoxStream<'static, Result<RecordBatch, Error>>;

/// A snapshot as it was handed in, with the seq it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The last record that went into it.
    pub seq: Seq,
    pub bytes: Vec<u8>,
}

/// One ordered, durable history of records.
///
/// What a caller may rely on, in every implementation:
/// - Seqs grow by one from record to record. The only exception is a repaired log, where the seqs of lost records are never given again.
/// - Times never go back: a record is never older than the one before it.
/// - What [`append`](Self::append) acknowledged survives what the log's durability says, and appears exactly once.
/// - The entries of one `append` are adjacent, and either all there or none.
/// - A reader never sees a record that could still disappear: records become visible after they are durable.
pub trait EventLog: Send + Sync + 'static {
    /// Puts entries at the end of the log; gives the seq of the last one once all are durable.
    ///
    /// The place in the order is taken when this is called, not when the future is polled; the entries are appended even if the
    /// future is dropped. Facts waiting while a commit is under way go out together in the next one. With no entries it waits for what
    /// was handed in before, and gives the seq of the last record.
    ///
    /// After an error none of the entries is in the log as far as readers of this process can see; see [`Error::Stopped`].
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<'static, Result<Seq, Error>>;

    /// The records from `from` (inclusive) to the last one at the time of the call, a batch at a time.
    ///
    /// [`Seq::ZERO`] means from the oldest record that is kept; another seq that retention has dropped is [`Error::Compacted`].
    fn read(&self, from: Seq) -> Records;

    /// As [`read`](Self::read), and then every record as it becomes durable: no gap, nothing twice. Ends only when the log is closed.
    fn tail(&self, from: Seq) -> Records;

    /// The last record that was there at `time`: the greatest seq whose time is not after it; [`Seq::ZERO`] if there was none.
    fn at(&self, time: Timestamp) -> BoxFuture<'static, Result<Seq, Error>>;

    /// The last durable record; [`Seq::ZERO`] if there is none.
    fn last(&self) -> Seq;

    /// The oldest record that is kept, or the seq that the first one will have.
    fn first(&self) -> Seq;

    /// Keeps a state that was computed from the records up to and including `seq`. `name` says what state, and in which format.
    fn snapshot(&self, name: &str, seq: Seq, bytes: Vec<u8>) -> BoxFuture<'static, Result<(), Error>>;

    /// The snapshot of this name with the greatest seq that is not after `at_or_before`.
    fn latest_snapshot(&self, name: &str, at_or_before: Seq) -> BoxFuture<'static, Result<Option<Snapshot>, Error>>;

    /// Drops records older than `before`, as far as snapshots allow; gives the oldest record that is kept.
    ///
    /// For every name the newest snapshot older than `before` is kept with every record after it, so each state can still be rebuilt at
    /// `before` and later. With a name that has no such snapshot, nothing is dropped. Without any snapshot it is [`Error::NoSnapshot`].
    fn compact(&self, before: Seq) -> BoxFuture<'static, Result<Seq, Error>>;

    /// Drops what is older or more than `retention` says, by the rules of [`compact`](Self::compact); gives the oldest record that is
    /// kept. Without a snapshot nothing is dropped.
    fn retain(&self, retention: Retention, now: Timestamp) -> BoxFuture<'static, Result<Seq, Error>>;
}

/// How much history is kept. Both limits hold as far as snapshots allow: a state that can be rebuilt is never lost half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Records of the last so much time are kept; without it all of them.
    pub age: Option<Duration>,
    /// The newest records are kept whose frames have so many bytes together; without it all of them.
    pub bytes: Option<u64>,
}
