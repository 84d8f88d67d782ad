//! What goes to somebody far away: collected for a moment, and sent in batches by a task of its own.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};

use crate::metrics::Counter;
use crate::throttle::Throttle;

/// Items that may wait; more are lost, and counted.
const WAITING: usize = 2048;
/// Items that are sent together, at most.
const BATCH: usize = 512;
/// How long the first item of a batch waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// Between two messages about a destination that does not take anything.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// What became of items.
#[derive(Debug, Default)]
pub struct Sent {
    pub sent: Counter,
    pub lost: Counter,
}

/// The way to one destination.
pub trait Carrier: Send + 'static {
    type Item: Send + 'static;
    type Error: Display + Send;

    /// What the items are, for messages.
    const ITEMS: &str;

    /// Sends all of a batch, or none. Gives up by itself when it takes too long.
    fn carry(&mut self, batch: Vec<Self::Item>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Takes items for the destination that the configuration names at that moment.
pub struct Batches<T> {
    counts: Arc<Sent>,
    active: ArcSwapOption<Active<T>>,
    changing: Mutex<()>,
}

struct Active<T> {
    destination: String,
    queue: mpsc::Sender<Order<T>>,
}

enum Order<T> {
    Send(T),
    /// Answered once everything before it is sent.
    Tell(oneshot::Sender<()>),
}

impl<T: Send + 'static> Batches<T> {
    pub fn new(counts: Arc<Sent>) -> Self {
        Self { counts, active: ArcSwapOption::empty(), changing: Mutex::default() }
    }

    /// Never waits. `open` makes the way if the destination is another one than before; none: there is no way, and what goes there is
    /// lost. Needs a tokio runtime.
    pub fn send<C: Carrier<Item = T>>(&self, item: T, destination: &str, open: impl FnOnce() -> Option<C>) {
        if self.queue(destination, open).try_send(Order::Send(item)).is_err() {
            self.lose();
        }
    }

    /// An item goes nowhere.
    pub fn lose(&self) {
        self.counts.lost.add(1);
    }

    /// Waits until everything so far is sent, at most `limit`.
    pub async fn finish(&self, limit: Duration) {
        let Some(active) = self.active.load_full() else { return };
        let (tell, told) = oneshot::channel();
        let sent = async {
            if active.queue.send(Order::Tell(tell)).await.is_ok() {
                let _ = told.await;
            }
        };
        let _ = tokio::time::timeout(limit, sent).await;
    }

    fn queue<C: Carrier<Item = T>>(
        &self,
        destination: &str,
        open: impl FnOnce() -> Option<C>,
    ) -> mpsc::Sender<Order<T>> {
        let in_use = || {
            let active = self.active.load();
            active.as_ref().filter(|active| active.destination == destination).map(|active| active.queue.clone())
        };
        if let Some(queue) = in_use() {
            return queue;
        }
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = in_use() {
            return queue;
        }
        let (queue, orders) = mpsc::channel(WAITING);
        // With none the queue is closed, and what comes is counted as lost.
        if let Some(carrier) = open() {
            tokio::spawn(run(carrier, orders, destination.to_owned(), Arc::clone(&self.counts)));
        }
        // The one before sends what it has, and ends with its queue.
        self.active.store(Some(Arc::new(Active { destination: destination.to_owned(), queue: queue.clone() })));
        queue
    }
}

async fn run<C: Carrier>(
    mut carrier: C,
    mut orders: mpsc::Receiver<Order<C::Item>>,
    destination: String,
    counts: Arc<Sent>,
) {
    let complaints = Throttle::new(COMPLAIN_EVERY);
    let (mut batch, mut waiting, mut open) = (Vec::new(), Vec::new(), true);
    while open {
        open = collect(&mut orders, &mut batch, &mut waiting).await;
        if !batch.is_empty() {
            let count = batch.len() as u64;
            match carrier.carry(std::mem::take(&mut batch)).await {
                Ok(()) => counts.sent.add(count),
                Err(error) => {
                    counts.lost.add(count);
                    if complaints.pass().is_some() {
                        tracing::warn!(destination, %error, lost = count, "{} are lost: they were not taken", C::ITEMS);
                    }
                }
            }
        }
        for tell in waiting.drain(..) {
            let _ = tell.send(());
        }
    }
}

/// Waits until the batch is full, or its first item has waited for long enough, or somebody waits. False: nothing more will come.
async fn collect<T>(
    orders: &mut mpsc::Receiver<Order<T>>,
    batch: &mut Vec<T>,
    waiting: &mut Vec<oneshot::Sender<()>>,
) -> bool {
    let Some(mut next) = orders.recv().await else { return false };
    let late = tokio::time::sleep(DELAY);
    tokio::pin!(late);
    loop {
        match next {
            Order::Send(item) => batch.push(item),
            Order::Tell(tell) => {
                waiting.push(tell);
                return true;
            }
        }
        if batch.len() == BATCH {
            return true;
        }
        next = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => order,
                None => return false,
            },
            () = &mut late => return true,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::mpsc::UnboundedSender;
    use tokio::sync::{Semaphore, mpsc};

    use super::*;

    /// Tells what it carries, as soon as it may.
    struct Telling(&'static str, Arc<Semaphore>, UnboundedSender<(&'static str, Vec<u32>)>);

    impl Carrier for Telling {
        type Item = u32;
        type Error = Infallible;

        const ITEMS: &str = "numbers";

        async fn carry(&mut self, batch: Vec<u32>) -> Result<(), Infallible> {
            let _may = self.1.acquire().await.unwrap();
            let _ = self.2.send((self.0, batch));
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_lost_and_nobody_waits() {
        let (counts, may) = (Arc::new(Sent::default()), Arc::new(Semaphore::new(0)));
        let (tell, mut told) = mpsc::unbounded_channel();
        let batches = Batches::new(Arc::clone(&counts));
        let mut next = 0..;
        while counts.lost.get() < 10 {
            batches.send(next.next().unwrap(), "a", || Some(Telling("a", Arc::clone(&may), tell.clone())));
        }
        assert_eq!(next.start, WAITING as u32 + 10);
        may.add_permits(1);
        batches.finish(Duration::from_secs(60)).await;
        assert_eq!(counts.sent.get(), WAITING as u64);
        let mut all = Vec::new();
        while let Ok((_, batch)) = told.try_recv() {
            assert!(batch.len() <= BATCH);
            all.extend(batch);
        }
        assert!(all.into_iter().eq(0..WAITING as u32));
    }

    #[tokio::test]
    async fn another_destination_has_a_way_of_its_own_and_what_was_for_the_first_gets_there() {
        let (counts, may) = (Arc::new(Sent::default()), Arc::new(Semaphore::new(1)));
        let (tell, mut told) = mpsc::unbounded_channel();
        let batches = Batches::new(Arc::clone(&counts));
        for (item, destination) in [(1, "a"), (2, "a"), (3, "b")] {
            batches.send(item, destination, || Some(Telling(destination, Arc::clone(&may), tell.clone())));
        }
        batches.finish(Duration::from_secs(60)).await;
        let mut both = [told.recv().await.unwrap(), told.recv().await.unwrap()];
        both.sort();
        assert_eq!(both, [("a", vec![1, 2]), ("b", vec![3])]);
        // To where there is no way.
        batches.send(4, "c", || None::<Telling>);
        assert_eq!((counts.sent.get(), counts.lost.get()), (3, 1));
    }
}
