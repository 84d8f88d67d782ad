//! An orderly end: no new work, and time for what is under way.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tells every part of the proxy that the end has begun, and waits for their work.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    work: TaskTracker,
}

impl Drain {
    /// Waits until the drain begins.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// Whether the drain has begun.
    pub fn is_started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Runs work that the end waits for.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(work);
    }

    /// How many pieces of work are under way.
    pub fn under_way(&self) -> usize {
        self.work.len()
    }

    /// Begins the drain and waits for the work under way, at most `limit`. True if all of it came to its end.
    pub async fn finish(&self, limit: Duration) -> bool {
        self.token.cancel();
        self.work.close();
        tokio::time::timeout(limit, self.work.wait()).await.is_ok()
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
