//! The endpoints behind a service port, and the weighted draw between several of them.

use crate::decide::Backend;
use crate::model::Endpoint;

/// The endpoints of one service port.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// `ns/name`.
    pub service: std::sync::Arc<str>,
    /// The service's port number.
    pub port: u16,
    /// Sorted by address, without duplicates.
    pub endpoints: std::sync::Arc<[Endpoint]>,
}

impl Pool {
    pub fn backend(&self) -> Backend<'_> {
        Backend { service: &self.service, port: self.port, endpoints: &self.endpoints }
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
