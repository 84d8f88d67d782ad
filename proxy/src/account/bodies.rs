//! What passes of both bodies of an exchange, as soon as it is known.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::metrics::RequestStats;
use crate::stream::{End, Metered, Way};

/// What is known of both bodies; it is told to the metrics as well.
#[derive(Default)]
pub struct Bodies {
    stats: OnceLock<Arc<RequestStats>>,
    received: AtomicU64,
    sent: AtomicU64,
    response_end: AtomicU8,
}

const WHOLE: u8 = 1;
const BROKEN: u8 = 2;
const GIVEN_UP: u8 = 3;

impl Bodies {
    /// Where the metrics count them.
    pub fn count_in(&self, stats: &Arc<RequestStats>) {
        // The same each time.
        let _ = self.stats.set(Arc::clone(stats));
    }

    /// Bytes from the client, and to it.
    pub fn totals(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    /// How the response's body ended; none: it has not.
    pub fn response_end(&self) -> Option<End> {
        match self.response_end.load(Ordering::Relaxed) {
            WHOLE => Some(End::Whole),
            BROKEN => Some(End::Broken),
            GIVEN_UP => Some(End::GivenUp),
            _ => None,
        }
    }

    /// The response's body has ended.
    pub fn ended(&self, end: End) {
        let end = match end {
            End::Whole => WHOLE,
            End::Broken => BROKEN,
            End::GivenUp => GIVEN_UP,
        };
        self.response_end.store(end, Ordering::Relaxed);
    }
}

impl Metered for Bodies {
    fn passed(&self, way: Way, bytes: u64, end: End) {
        if let Some(stats) = self.stats.get() {
            stats.passed(way, bytes, end);
        }
        match way {
            Way::Request => self.received.store(bytes, Ordering::Relaxed),
            Way::Response => {
                self.sent.store(bytes, Ordering::Relaxed);
                self.ended(end);
            }
        }
    }
}
