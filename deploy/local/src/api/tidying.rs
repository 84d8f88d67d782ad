//! Forgets changes from which nobody goes on any more, and gives the memory back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::server::Server;

/// How often it is done.
const INTERVAL: Duration = Duration::from_secs(60);

/// Runs until the server stops. Changes are kept for so long.
pub async fn run(server: Arc<Server>, history: Duration) {
    let interval = INTERVAL.min(history);
    // Sooner the first time: a start leaves much behind.
    let mut next = interval.min(Duration::from_secs(5));
    let mut seen = 0;
    while server.stopping.run_until_cancelled(tokio::time::sleep(next)).await.is_some() {
        next = interval;
        let forgotten = Instant::now().checked_sub(history).is_some_and(|then| server.database.forget_before(then));
        let version = server.database.version();
        if forgotten || version != seen {
            seen = version;
            release();
        }
    }
}

/// Gives memory that was freed back to the system; by itself the allocator keeps most of it.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "a call of the C library")]
fn release() {
    // SAFETY: malloc_trim may be called at any time from any thread; it touches only what is free.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn release() {}
