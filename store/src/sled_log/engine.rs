//! The storage engine behind one door: its errors and its panics become our errors.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// How long the files of a log that was just closed by this process may still be held by the engine's background threads.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls the engine. sled panics on some I/O errors and on damage that its own checksums missed.
pub(super) fn engine<T>(dir: &Path, action: &'static str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
    let result = catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(sled::Error::ReportableBug(panic_message(panic.as_ref()))));
    result.map_err(|source| Error::Engine { dir: dir.into(), action, source: Arc::new(source) })
}

/// Opens the engine's files. The caller holds the log's own lock, so whoever still holds the engine's is a thread of this process that
/// is about to let go.
pub(super) fn open_engine(dir: &Path, engine_dir: &Path, cache_bytes: u64) -> Result<sled::Db, Error> {
    let config = sled::Config::new()
        .path(engine_dir)
        .cache_capacity(cache_bytes)
        // Every commit flushes; a timer would only add writes in between.
        .flush_every_ms(None);
    drop_unfinished_copies(engine_dir)?;
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    loop {
        match engine(dir, "open its files", || config.open()) {
            Err(error) if still_locked(&error) && Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            result => return result,
        }
    }
}

/// The engine keeps copies of its index, which it does without. One that a sudden end left half-written it takes for damage.
fn drop_unfinished_copies(engine_dir: &Path) -> Result<(), Error> {
    let Ok(files) = fs::read_dir(engine_dir) else { return Ok(()) };
    for file in files.filter_map(|file| Some(file.ok()?.path())) {
        if file.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&file).map_err(|error| Error::io(format!("remove {}", file.display()), error))?;
        }
    }
    Ok(())
}

fn still_locked(error: &Error) -> bool {
    matches!(error, Error::Engine { source, .. }
        if matches!(&**source, sled::Error::Io(error) if error.to_string().contains("could not acquire lock")))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}
