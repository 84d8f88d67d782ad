//! What is under way to a service port, all endpoints together, so that it can be bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::port::Port;

/// Requests and the like that are under way. Only what a bound is set for is counted.
#[derive(Debug, Default)]
pub struct Circuit([AtomicU32; 3]);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Requests,
    /// Requests that were sent again by policy.
    Retries,
    /// Opaque connections.
    Connections,
}

/// One of them, until dropped.
#[must_use = "counted only as long as this is held"]
pub struct Entered(Arc<Port>, Counted);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.circuit.at(self.1).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Circuit {
    fn at(&self, counted: Counted) -> &AtomicU32 {
        &self.0[counted as usize]
    }

    pub fn open(&self, counted: Counted) -> u32 {
        self.at(counted).load(Ordering::Relaxed)
    }
}

impl Port {
    /// A place among at most `most`; none is left: none.
    pub fn enter(self: &Arc<Self>, counted: Counted, most: u32) -> Option<Entered> {
        let taken = |open: u32| (open < most).then_some(open + 1);
        let entered = self.circuit.at(counted).fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        entered.is_ok().then(|| Entered(Arc::clone(self), counted))
    }
}
