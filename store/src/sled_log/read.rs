//! Reading: a batch, a stretch of history, history and then live, and the way from a time to a seq.

use std::sync::{Arc, Weak};

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use super::store::Store;
use crate::{Error, RecordBatch, Records, Seq, Timestamp};

/// Unpacked records are handed over to the reader's thread about so many bytes at a time: little enough to stay in a processor's cache.
const HANDED_OVER_BYTES: usize = 256 << 10;
/// And so many frames at most: who asks for many gets many.
const HANDED_OVER_FRAMES: usize = 256;

/// Where a reader has got to in what was there when it began.
struct Reading {
    store: Arc<Store>,
    next: Seq,
    /// How many frames to unpack the next time: one at first, as many readers want one record only.
    frames: usize,
}

pub(super) fn read(store: &Arc<Store>, from: Seq) -> Records {
    let upto = store.last();
    let start = store.start(from).map(|next| Reading { store: Arc::clone(store), next, frames: 1 });
    stream::try_unfold(start, move |state| async move {
        let mut reading = state?;
        let (next, frames) = (reading.next, reading.frames);
        let unpacked = Store::in_background(&reading.store, move |store| store.batches(next, upto, frames)).await?;
        Ok::<_, Error>(unpacked.batches.last().map(after).map(|next| {
            reading.next = next;
            reading.frames = (frames * 2).min(HANDED_OVER_FRAMES);
            // What is good is handed out before an error that comes after it.
            let state = unpacked.error.map_or(Ok(reading), Err);
            (stream::iter(unpacked.batches.into_iter().map(Ok)), state)
        }))
    })
    .try_flatten()
    .boxed()
}

/// Some batches in a row, and why there are no more of them if that is an error.
#[derive(Default)]
struct Unpacked {
    batches: Vec<RecordBatch>,
    error: Option<Error>,
}

/// Where a tail has got to. It does not keep the log open while it waits.
struct Tail {
    store: Weak<Store>,
    committed: watch::Receiver<Seq>,
    next: Seq,
}

pub(super) fn tail(store: &Arc<Store>, from: Seq) -> Records {
    let (weak, committed) = (Arc::downgrade(store), store.follow());
    let start = store.start(from).map(|next| Tail { store: weak, committed, next });
    stream::try_unfold(start, |state| async move {
        let mut tail = state?;
        let Ok(upto) = tail.committed.wait_for(|last| *last >= tail.next).await.map(|last| *last) else {
            return Ok(None);
        };
        let Some(store) = tail.store.upgrade() else { return Ok(None) };
        let next = tail.next;
        let batch = match store.recent(next) {
            Some(batch) => Some(between(batch, next, upto)),
            None => Store::in_background(&store, move |store| store.batch(next, upto)).await?,
        };
        Ok(batch.map(|batch| {
            tail.next = after(&batch);
            (batch, Ok(tail))
        }))
    })
    .boxed()
}

impl Store {
    /// Where a reader who asks for `from` begins.
    fn start(&self, from: Seq) -> Result<Seq, Error> {
        let first = self.first();
        match from {
            Seq::ZERO => Ok(first),
            from if from < first => Err(Error::Compacted { from, first }),
            from => Ok(from),
        }
    }

    /// The records from `from` to `upto` of the next frames. It is an error only if there is one before the first of them.
    fn batches(&self, from: Seq, upto: Seq, frames: usize) -> Result<Unpacked, Error> {
        let (mut next, mut bytes, mut unpacked) = (from, 0, Unpacked::default());
        while next <= upto && bytes < HANDED_OVER_BYTES && unpacked.batches.len() < frames {
            match self.batch(next, upto) {
                Ok(Some(batch)) => {
                    next = after(&batch);
                    bytes += batch.iter().map(|record| record.entry.body.len()).sum::<usize>();
                    unpacked.batches.push(batch);
                }
                Ok(None) => break,
                Err(error) if unpacked.batches.is_empty() => return Err(error),
                Err(error) => {
                    unpacked.error = Some(error);
                    break;
                }
            }
        }
        Ok(unpacked)
    }

    /// The records from `from` to `upto` of the first frame that has any.
    fn batch(&self, from: Seq, upto: Seq) -> Result<Option<RecordBatch>, Error> {
        if let Some(frame) = self.frame_at_or_before(from)? {
            let (header, records) = frame.decode().map_err(|error| self.frame_error(frame.first_seq, &error))?;
            if header.last_seq() >= from {
                return Ok(Some(between(records, from, upto)));
            }
        }
        // Only after a repair are there seqs without records.
        let Some(frame) = self.frame_at_or_after(from)?.filter(|frame| frame.first_seq <= upto) else {
            return Ok(None);
        };
        let (_, records) = frame.decode().map_err(|error| self.frame_error(frame.first_seq, &error))?;
        Ok(Some(between(records, from, upto)))
    }

    /// The last record whose time is not after `time`.
    pub(super) fn at(&self, time: Timestamp) -> Result<Seq, Error> {
        // Records up to `low` are not after `time`, those after `high` are.
        let (mut low, mut high) = (self.first().0 - 1, self.last().0);
        while low < high {
            let middle = high - (high - low) / 2;
            let Some(frame) = self.frame_at_or_before(Seq(middle))?.filter(|frame| frame.first_seq.0 > low) else {
                // No record lies in between.
                low = middle;
                continue;
            };
            let header = frame.header().map_err(|error| self.frame_error(frame.first_seq, &error))?;
            if header.last_time <= time {
                low = middle.max(header.last_seq().0).min(high);
            } else if header.first_time > time {
                high = header.first_seq.0 - 1;
            } else {
                let (_, records) = frame.decode().map_err(|error| self.frame_error(frame.first_seq, &error))?;
                let place = records.partition_point(|record| record.time <= time);
                return Ok(Seq(header.first_seq.0 + place as u64 - 1));
            }
        }
        // `low` may be a seq that was lost.
        match self.frame_at_or_before(Seq(low))? {
            Some(frame) if low >= self.first().0 => {
                let header = frame.header().map_err(|error| self.frame_error(frame.first_seq, &error))?;
                Ok(header.last_seq().min(Seq(low)))
            }
            _ => Ok(Seq::ZERO),
        }
    }
}

/// The seq after a batch.
fn after(batch: &RecordBatch) -> Seq {
    batch.last().map_or(Seq::ZERO, |record| record.seq).next()
}

/// The records of a batch from `from` to `upto`.
fn between(batch: RecordBatch, from: Seq, upto: Seq) -> RecordBatch {
    let begin = batch.partition_point(|record| record.seq < from);
    let end = batch.partition_point(|record| record.seq <= upto);
    if begin == 0 && end == batch.len() { batch } else { batch[begin..end].into() }
}
