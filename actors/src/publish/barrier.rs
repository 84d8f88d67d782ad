//! Waits until every concern has reached the end of a batch.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::catalog::Applied;
use crate::concern::ConcernDone;

/// A batch that every concern has reached the end of.
pub struct Joined {
    pub batch: Arc<Applied>,
    /// One for each concern, in their order.
    pub done: Vec<ConcernDone>,
}

/// Something that came from the catalog or from a concern.
pub enum Part {
    Batch(Arc<Applied>),
    Concern(ConcernDone),
}

/// Holds parts back until they make a whole. Each sender's parts come in the order of the batches.
pub struct Barrier {
    batches: VecDeque<Arc<Applied>>,
    concerns: Vec<VecDeque<ConcernDone>>,
}

impl Barrier {
    /// A barrier for this many concerns.
    pub fn new(concerns: usize) -> Self {
        Self { batches: VecDeque::new(), concerns: (0..concerns).map(|_| VecDeque::new()).collect() }
    }

    /// Takes a part in.
    pub fn put(&mut self, part: Part) {
        match part {
            Part::Batch(batch) => self.batches.push_back(batch),
            Part::Concern(done) => self.concerns[done.concern].push_back(done),
        }
    }

    /// The next whole batch, if it is there.
    pub fn pop(&mut self) -> Option<Joined> {
        if self.batches.is_empty() || self.concerns.iter().any(VecDeque::is_empty) {
            return None;
        }
        let batch = self.batches.pop_front()?;
        let done: Vec<ConcernDone> = self.concerns.iter_mut().filter_map(VecDeque::pop_front).collect();
        for part in &done {
            assert_eq!(part.last, batch.last(), "every concern sees the same batches");
        }
        Some(Joined { batch, done })
    }
}
