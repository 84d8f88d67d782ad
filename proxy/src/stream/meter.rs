//! How much has passed: of a body, or of a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which body of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Request,
    Response,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it has passed.
    Whole,
    /// It broke off where it came from.
    Broken,
    /// Whoever read it wants no more.
    GivenUp,
}

/// Is told of a body when it has come to its end or is given up, and of a connection whenever bytes have passed.
pub trait Metered: Send + Sync {
    fn passed(&self, way: Way, bytes: u64, end: End);
}

/// Counts one body. Tells when dropped.
pub struct Meter {
    to: Arc<dyn Metered>,
    way: Way,
    bytes: u64,
    end: End,
}

impl Meter {
    pub fn new(to: Arc<dyn Metered>, way: Way) -> Self {
        Self { to, way, bytes: 0, end: End::GivenUp }
    }

    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(super) fn ended(&mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.to.passed(self.way, self.bytes, self.end);
    }
}

/// Counts both directions of a joined connection.
pub struct Passed {
    to: Arc<dyn Metered>,
    /// What is read from the connection's socket.
    reads: Way,
    read: AtomicU64,
    written: AtomicU64,
}

impl Passed {
    /// `reads` says on whose side the socket is: what the client sends is [`Way::Request`].
    pub fn new(to: Arc<dyn Metered>, reads: Way) -> Arc<Self> {
        Arc::new(Self { to, reads, read: AtomicU64::new(0), written: AtomicU64::new(0) })
    }

    pub(super) fn read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        self.to.passed(self.reads, bytes as u64, End::Whole);
    }

    pub(super) fn written(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
        let writes = if self.reads == Way::Request { Way::Response } else { Way::Request };
        self.to.passed(writes, bytes as u64, End::Whole);
    }

    /// Bytes from the client, and to it.
    pub fn totals(&self) -> (u64, u64) {
        let (read, written) = (self.read.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        if self.reads == Way::Request { (read, written) } else { (written, read) }
    }
}
