#[cfg(target_os = "linux")]
mod boundaries;
mod crash;
mod damage;
mod group_commit;
mod reading;
mod retention;
mod salvage;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;

use crate::{Clock, Entry, Error, EventLog, Options, Record, Records, Seq, SledLog, Timestamp, TraceContext};

fn entry(body: impl Into<Bytes>) -> Entry {
    Entry {
        topic: "object".into(),
        key: "v1/Pod default/web-0".into(),
        body: body.into(),
        trace: TraceContext::default(),
    }
}

fn numbered(numbers: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    numbers.into_iter().map(|number| entry(number.to_string())).collect()
}

fn number(record: &Record) -> u64 {
    std::str::from_utf8(&record.entry.body).unwrap().parse().unwrap()
}

fn open(dir: &Path) -> SledLog {
    SledLog::open(dir, Options::default()).unwrap()
}

async fn all(records: Records) -> Result<Vec<Record>, Error> {
    let batches: Vec<_> = records.try_collect().await?;
    Ok(batches.iter().flat_map(|batch| batch.iter().cloned()).collect())
}

/// A log whose clock is set by the test.
fn open_with_clock(dir: &Path, start: u64) -> (SledLog, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(start));
    let now = Arc::clone(&time);
    let clock = Clock::new(move || Timestamp(now.load(Ordering::SeqCst)));
    (SledLog::open(dir, Options { clock, ..Options::default() }).unwrap(), time)
}

/// A log that nobody uses, with everything that is in its directory.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn seqs(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.seq.0).collect()
}

const START: Seq = Seq::ZERO;
