//! The threads that carry traffic.
//!
//! Each has a runtime of its own. A connection stays with the thread that it was given to, and so do the connections to peers
//! that its requests leave on: work never moves, and no thread wakes another one for a request.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const NAME: &str = "fsm-proxy";

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The thread that has made this, of which the first is, and others. Those end with the last clone.
#[derive(Clone, Debug)]
pub struct Workers {
    others: Arc<[Handle]>,
    _end: Arc<DropGuard>,
}

impl Default for Workers {
    /// One thread only.
    fn default() -> Self {
        Self { others: Arc::default(), _end: Arc::new(CancellationToken::new().drop_guard()) }
    }
}

impl Workers {
    /// `threads` in all, this one included.
    ///
    /// # Errors
    ///
    /// When the kernel gives no thread or no event queue.
    pub fn start(threads: usize) -> io::Result<Self> {
        let end = CancellationToken::new();
        let guard = Arc::new(end.clone().drop_guard());
        let start = |index| {
            let (runtime, ended) = (runtime()?, end.clone());
            let handle = runtime.handle().clone();
            std::thread::Builder::new().name(format!("{NAME}-{index}")).spawn(move || {
                INDEX.set(index);
                runtime.block_on(ended.cancelled());
            })?;
            Ok(handle)
        };
        let others: io::Result<Vec<_>> = (1..threads).map(start).collect();
        Ok(Self { others: others?.into(), _end: guard })
    }

    /// How many threads these are.
    pub fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Which of all workers' threads this one is; 0 for every other thread.
    pub fn current() -> usize {
        INDEX.get()
    }

    /// Runs `work` on the thread `index`; 0 is the one that calls. The tracker waits for it.
    pub fn spawn(&self, index: usize, tracker: &TaskTracker, work: impl Future<Output = ()> + Send + 'static) {
        match index.checked_sub(1).and_then(|index| self.others.get(index)) {
            Some(other) => drop(tracker.spawn_on(work, other)),
            None => drop(tracker.spawn(work)),
        }
    }
}

/// What one thread runs on.
///
/// # Errors
///
/// When the kernel gives no event queue.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().thread_name(NAME).enable_all().build()
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn each_worker_is_a_thread_of_its_own_and_all_end_together() {
        let (workers, tracker) = (Workers::start(3).unwrap(), TaskTracker::new());
        let (say, mut said) = mpsc::unbounded_channel();
        for index in 0..workers.count() {
            let say = say.clone();
            workers.spawn(index, &tracker, async move {
                say.send((Workers::current(), std::thread::current().id())).unwrap();
            });
        }
        let mut threads = vec![];
        for _ in 0..3 {
            threads.push(said.recv().await.unwrap());
        }
        threads.sort_by_key(|(index, _)| *index);
        assert_eq!(threads.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(threads[0].1, std::thread::current().id());
        assert_ne!(threads[1].1, threads[2].1);
        // Work that never ends goes with its runtime.
        workers.spawn(1, &tracker, async move {
            let _held = say;
            std::future::pending::<()>().await;
        });
        drop(workers);
        assert!(said.recv().await.is_none());
    }
}
