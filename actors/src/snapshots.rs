//! Keeps a log's snapshots: takes them now and then, and drops the history that they make superfluous.
//!
//! A snapshot is computed from the one before and the records since, beside the running state machines and without a word to
//! them. It is stored only if it leads back to the state that it was taken of.

use std::sync::Arc;
use std::time::SystemTime;

use fsm_store::{EventLog, Retention, Seq, Timestamp};
use futures::StreamExt;
use tokio::runtime::Handle;

use crate::core::{RebuildError, SNAPSHOT, Skips, rebuild, snapshot};

/// When snapshots are taken, and what is dropped then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A snapshot after so many records,
    pub every_records: u64,
    /// or after so many bytes of records.
    pub every_bytes: u64,
    pub retention: Retention,
}

impl Default for Policy {
    fn default() -> Self {
        Self { every_records: 4_000, every_bytes: 64 << 20, retention: Retention::default() }
    }
}

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error("it can't be read back: {0}")]
    Unreadable(#[from] snapshot::SnapshotError),
    #[error(
        "it leads to another state of {machines} than it was taken of: this is a bug, please report it with the log"
    )]
    Different { machines: String },
    #[error(transparent)]
    Log(#[from] fsm_store::Error),
}

/// Takes a snapshot of the state after the log's last record, if there is none; gives its seq.
pub async fn take(log: &dyn EventLog) -> Result<Seq, TakeError> {
    let upto = log.last();
    if upto == Seq::ZERO || newest(log).await? == Some(upto) {
        return Ok(upto);
    }
    let core = rebuild(log, upto, Skips::new()).await?;
    let bytes = snapshot::write(&core);
    let restored = snapshot::restore(&bytes)?;
    if !restored.differing.is_empty() {
        return Err(TakeError::Different { machines: restored.differing.join(", ") });
    }
    // After a repair the last seq that has a record may be an earlier one.
    log.snapshot(SNAPSHOT, core.seq(), bytes).await?;
    Ok(core.seq())
}

/// Takes snapshots and drops old history as the policy says, until the log is closed.
pub async fn keep(log: Arc<dyn EventLog>, policy: Policy) {
    if let Err(error) = follow(&log, &policy).await {
        tracing::error!(%error, "no more snapshots are taken: the log can't be followed");
    }
}

async fn follow(log: &Arc<dyn EventLog>, policy: &Policy) -> Result<(), fsm_store::Error> {
    retain(&**log, policy).await;
    let covered = newest(&**log).await?.unwrap_or(Seq::ZERO);
    let mut batches = log.tail(covered.next().max(log.first()));
    let (mut records, mut bytes) = (0, 0);
    while let Some(batch) = batches.next().await {
        for record in batch?.iter() {
            records += 1;
            bytes += (record.entry.key.len() + record.entry.body.len()) as u64;
        }
        if records >= policy.every_records || bytes >= policy.every_bytes {
            (records, bytes) = (0, 0);
            take_aside(log).await;
            retain(&**log, policy).await;
        }
    }
    Ok(())
}

/// Computing takes a while: it gets a thread of its own.
async fn take_aside(log: &Arc<dyn EventLog>) {
    let (log, runtime) = (Arc::clone(log), Handle::current());
    let taken = tokio::task::spawn_blocking(move || runtime.block_on(take(&*log))).await;
    match taken {
        Ok(Ok(seq)) => tracing::debug!(%seq, "took a snapshot"),
        Ok(Err(error)) => tracing::error!(%error, "no snapshot was taken; the next one is tried in time"),
        Err(error) => tracing::error!(%error, "no snapshot was taken; the next one is tried in time"),
    }
}

async fn retain(log: &dyn EventLog, policy: &Policy) {
    let before = log.first();
    match log.retain(policy.retention, now()).await {
        Ok(first) if first > before => tracing::info!(%first, "dropped history before this seq"),
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "old history was not dropped"),
    }
}

async fn newest(log: &dyn EventLog) -> Result<Option<Seq>, fsm_store::Error> {
    Ok(log.latest_snapshot(SNAPSHOT, log.last()).await?.map(|found| found.seq))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
