//! Background tasks that end together.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks. [`Tasks::stop`] cancels them all at their next await and waits until they are gone.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    token: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// Runs `work` until it ends or the group is stopped, whichever comes first.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.tracker.spawn(async move {
            token.run_until_cancelled(work).await;
        });
    }

    /// Runs `work` to its end even when the group is stopped; `work` watches [`Tasks::stopping`] itself.
    pub fn spawn_to_end(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work);
    }

    /// Resolves when the group is being stopped.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.token.clone().cancelled_owned()
    }

    pub async fn stop(&self) {
        self.token.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Asks the tasks to end without waiting for them.
    pub fn cancel(&self) {
        self.token.cancel();
        self.tracker.close();
    }
}
