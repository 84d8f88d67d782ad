//! What is under way to a service port, all endpoints together, so that it can be bounded.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fsm_proxy_config::traffic::Limits;
use serde::Serialize;

use super::port::Port;
use crate::upstream::DialError;

/// Requests and the like that are under way. Only what a bound is set for is counted.
#[derive(Debug, Default)]
pub struct Circuit([AtomicU32; 4]);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Requests,
    /// Requests that were sent again by policy.
    Retries,
    /// Opaque connections.
    Connections,
    /// Requests that wait for a connection.
    Pending,
}

/// What there is of it now, as far as it is counted, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CircuitState {
    pub requests: u32,
    pub retries: u32,
    pub connections: u32,
    pub pending: u32,
    /// The circuit breaker is open, and closes after so long.
    pub open_for_ms: Option<u64>,
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

    pub(super) fn state(&self, open_for: Option<Duration>) -> CircuitState {
        CircuitState {
            requests: self.open(Counted::Requests),
            retries: self.open(Counted::Retries),
            connections: self.open(Counted::Connections),
            pending: self.open(Counted::Pending),
            open_for_ms: open_for.map(|left| left.as_millis() as u64),
        }
    }
}

/// Where requests to a service port wait while a connection is made for them.
#[derive(Clone, Copy)]
pub struct Queue<'p> {
    port: &'p Arc<Port>,
    most: u32,
}

impl<'p> Queue<'p> {
    /// None: nobody bounds how many may wait, and they are not counted.
    pub(super) fn of(port: &'p Arc<Port>, limits: &Limits) -> Option<Self> {
        limits.pending.map(|most| Self { port, most })
    }

    /// A place in it.
    ///
    /// # Errors
    ///
    /// None is left.
    pub fn enter(self) -> Result<Entered, DialError> {
        self.port.enter(Counted::Pending, self.most).ok_or(DialError::Crowded { most: self.most })
    }
}

impl fmt::Debug for Queue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue(at most {})", self.most)
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
