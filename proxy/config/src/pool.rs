//! The endpoints behind a service port, and the weighted draw between several of them.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::decide::Backend;
use crate::model::Endpoint;
use crate::traffic::TrafficPolicy;

/// The endpoints of one service port.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// `ns/name`.
    pub service: Arc<str>,
    /// The service's port number.
    pub port: u16,
    /// Sorted by address, without duplicates.
    pub endpoints: Arc<[Endpoint]>,
    pub policy: Arc<TrafficPolicy>,
    pub attachment: Attachment,
}

impl Pool {
    pub fn backend(&self) -> Backend<'_> {
        Backend {
            service: &self.service,
            port: self.port,
            endpoints: &self.endpoints,
            siblings: &self.endpoints,
            pinned: None,
            policy: &self.policy,
            attachment: &self.attachment,
        }
    }
}

/// A place for what the data path keeps about the endpoints of a service port, so that a request has it at hand. It
/// lasts as long as the snapshot; all that leads to the same endpoints shares it.
#[derive(Clone, Default)]
pub struct Attachment(Arc<OnceLock<Box<dyn Any + Send + Sync>>>);

impl Attachment {
    /// What is kept, made by `make` the first time. A snapshot serves one data path, so it is always of one type.
    pub fn get_or_init<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> &T {
        let kept = self.0.get_or_init(|| Box::new(make()));
        kept.downcast_ref().expect("a snapshot serves one data path")
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Attachment(in use)" } else { "Attachment" })
    }
}

/// A pool's part in a split.
#[derive(Clone, Debug)]
pub(crate) struct WeightedPool {
    pub pool: Pool,
    /// Above 0.
    pub weight: u32,
    /// The sum of the weights up to and with this one.
    pub cumulative: u64,
}

impl WeightedPool {
    pub fn backend(&self) -> Backend<'_> {
        self.pool.backend()
    }
}

/// Gives each pool its cumulative weight, in order.
pub(crate) fn weigh(pools: impl IntoIterator<Item = (Pool, u32)>) -> Vec<WeightedPool> {
    let mut cumulative = 0;
    pools
        .into_iter()
        .map(|(pool, weight)| {
            cumulative += u64::from(weight);
            WeightedPool { pool, weight, cumulative }
        })
        .collect()
}

/// The pool on which `draw` (uniform over all of `u32`) falls. `pools` is not empty.
pub(crate) fn pick(pools: &[WeightedPool], draw: u32) -> &Pool {
    let total = pools.last().map_or(0, |last| u128::from(last.cumulative));
    let point = ((u128::from(draw) * total) >> 32) as u64;
    let index = pools.partition_point(|one| one.cumulative <= point);
    &pools[index.min(pools.len() - 1)].pool
}
