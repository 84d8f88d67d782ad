//! Follows the controller's log while the demo runs.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use fsm_local::LocalCluster;
use fsm_store::{Record, Seq};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::fetch;
use super::latency::Propagation;
use crate::log::parse_line;

/// What was seen of the log so far.
struct Seen {
    records: Vec<Record>,
    propagation: Propagation,
}

/// A view of the controller's log that outlives the controller.
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    progress: watch::Receiver<Seq>,
    follow: JoinHandle<()>,
}

impl Observer {
    /// Follows the log of the controller of `cluster`, from its beginning, and through its restarts.
    pub fn start(cluster: Arc<LocalCluster>) -> Self {
        let seen = Arc::new(Mutex::new(Seen { records: Vec::new(), propagation: Propagation::new() }));
        let (report, progress) = watch::channel(Seq::ZERO);
        let follow = tokio::spawn(follow(cluster, seen.clone(), report));
        Self { seen, progress, follow }
    }

    /// The last record seen.
    pub fn seq(&self) -> Seq {
        *self.progress.borrow()
    }

    /// All records so far.
    pub fn records(&self) -> Vec<Record> {
        lock(&self.seen).records.clone()
    }

    /// What `look` finds in the propagation so far.
    pub fn look<T>(&self, look: impl FnOnce(&Propagation) -> T) -> T {
        look(&lock(&self.seen).propagation)
    }

    /// Waits for a record after `after` about `key`, and until every proxy concerned has acknowledged it.
    pub async fn settled(&self, after: Seq, key: &str, timeout: Duration) -> anyhow::Result<Seq> {
        let mut progress = self.progress.clone();
        let mut found = None;
        let waiting = async {
            loop {
                {
                    let seen = lock(&self.seen);
                    found = found.or_else(|| {
                        let later = &seen.records[seen.records.partition_point(|record| record.seq <= after)..];
                        later.iter().find(|record| record.entry.key == key).map(|record| record.seq)
                    });
                    if let Some(seq) = found
                        && seen.propagation.settled(seq)
                    {
                        return Ok(seq);
                    }
                }
                progress.changed().await.context("the log is no longer followed")?;
            }
        };
        let waited = tokio::time::timeout(timeout, waiting).await;
        waited.unwrap_or_else(|_| match found {
            Some(seq) => {
                Err(anyhow::anyhow!("{key}: not every proxy has acknowledged record {seq} within {timeout:?}"))
            }
            None => Err(anyhow::anyhow!("{key}: the change did not reach the log within {timeout:?}")),
        })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.follow.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // A panic elsewhere does not make what was seen less true.
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn follow(cluster: Arc<LocalCluster>, seen: Arc<Mutex<Seen>>, report: watch::Sender<Seq>) {
    loop {
        if let Err(error) = follow_once(&cluster, &seen, &report).await {
            tracing::debug!("following the controller's log: {error:#}");
        }
        // The controller is starting, or starting again.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn follow_once(cluster: &LocalCluster, seen: &Mutex<Seen>, report: &watch::Sender<Seq>) -> anyhow::Result<()> {
    let controller = super::bookstore::pod_of(cluster, super::bookstore::MESH_NAMESPACE, "fsm-controller").await?;
    let stream = cluster.dial_pod(super::bookstore::MESH_NAMESPACE, &controller, 9092).await?;
    let from = report.borrow().next();
    let mut lines = fetch::lines(stream, &format!("/records?from={from}&follow=true")).await?;
    while let Some(lines) = lines.next().await? {
        let records =
            lines.iter().map(|line| parse_line(std::str::from_utf8(line)?)).collect::<anyhow::Result<Vec<Record>>>()?;
        let Some(last) = records.last().map(|record| record.seq) else { continue };
        {
            let mut seen = lock(seen);
            records.iter().for_each(|record| seen.propagation.apply(record));
            seen.records.extend(records);
        }
        report.send_replace(last);
    }
    Ok(())
}
