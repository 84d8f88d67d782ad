//! An orderly end: no new work, and time for what is under way.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What connections have to close when their time is over.
const LAST: Duration = Duration::from_secs(1);

/// Tells every part of the proxy that the end has begun, and waits for their work.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    /// Cancelled when connections end on which nothing is under way.
    idle: CancellationToken,
    /// As the token, for those who look at it often.
    begun: Arc<AtomicBool>,
    work: TaskTracker,
}

impl Drain {
    /// Waits until the drain begins.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// Waits until connections end on which nothing is under way.
    pub async fn idle_ended(&self) {
        self.idle.cancelled().await;
    }

    /// Whether the drain has begun.
    #[cfg(test)]
    pub fn is_started(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Runs work that the end waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(work);
    }

    /// Becomes true when the drain begins.
    pub fn begun(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.begun)
    }

    /// What the end waits for.
    pub fn work(&self) -> &TaskTracker {
        &self.work
    }

    /// How many pieces of work are under way.
    pub fn under_way(&self) -> usize {
        self.work.len()
    }

    /// Begins the drain and waits for the work under way, at most `limit`. True if all of it came to its end.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.idle.cancel();
        self.begin();
        tokio::time::timeout(limit, self.work.wait()).await.is_ok()
    }

    /// As [`finish`](Self::finish), but connections on which nothing is under way are left to their clients as long as there
    /// is time: a client that is about to send a request on one would not know whether to send it again.
    pub async fn hand_over(&self, limit: Duration) -> bool {
        self.begin();
        let finished = tokio::time::timeout(limit, self.work.wait()).await.is_ok();
        self.idle.cancel();
        finished || tokio::time::timeout(LAST, self.work.wait()).await.is_ok()
    }

    fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
        self.token.cancel();
        self.work.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_under_way_is_waited_for_up_to_the_limit() {
        let drain = Drain::default();
        let (done, wait) = tokio::sync::oneshot::channel::<()>();
        drain.spawn(async move {
            let _ = wait.await;
        });
        assert!(!drain.finish(Duration::from_millis(1)).await);
        assert!(drain.is_started());
        drop(done);
        assert!(drain.finish(Duration::from_secs(30)).await);
    }
}
