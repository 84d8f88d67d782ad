//! How a log is opened.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::Timestamp;

/// What an acknowledged record survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, however sudden (SIGKILL, panic, out of memory). Not a power cut and not a crash of the kernel: a
    /// commit hands its bytes to the kernel and starts writing them out (sled's flush: `pwrite` and `sync_file_range`), but doesn't wait
    /// for file metadata, nor for the disk's own cache. What a power cut took is noticed at the next opening if the `HEAD` file
    /// outlived it, and then named.
    #[default]
    Process,
    /// A power cut too, as far as the disk keeps what it reports as synced. After sled's flush every commit syncs sled's file, new
    /// files beside it, their directory, and the `HEAD` file (`fdatasync`, `fsync`). A commit takes milliseconds instead of
    /// microseconds; group commit shares that cost between everybody who waits.
    Power,
}

/// What opening does when the log is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// Refuse with [`Error::Damaged`](crate::Error::Damaged). Nothing is changed.
    #[default]
    Refuse,
    /// Open what is before the damage, for reading only. Nothing is changed.
    ReadIntact,
    /// Check all frames, not only the end. Move the first damaged one and all after it to files in `aside/`, and go on after the last
    /// seq that was ever given.
    PutAside,
}

/// Where times come from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock of one's own, for simulations.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Default for Clock {
    /// The system's wall clock.
    fn default() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
        })
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// How to open a [`SledLog`](crate::SledLog).
#[derive(Clone, Debug)]
pub struct Options {
    pub durability: Durability,
    /// Start a log if the directory is missing or empty. Otherwise that is [`Error::Missing`](crate::Error::Missing).
    pub create: bool,
    pub on_damage: OnDamage,
    /// Asked once for each commit. When it goes back, records keep the time of the one before them.
    pub clock: Clock,
    /// Memory for the storage engine's page cache.
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            create: true,
            on_damage: OnDamage::default(),
            clock: Clock::default(),
            cache_bytes: 64 << 20,
        }
    }
}

impl Options {
    /// For looking into a log: nothing is created, and what is before a damage can be read.
    pub fn inspect() -> Self {
        Self { create: false, on_damage: OnDamage::ReadIntact, ..Self::default() }
    }
}
