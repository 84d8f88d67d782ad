//! Recorded histories and what has to come out of them, every time.

#![expect(clippy::unwrap_used, reason = "everything here is a test")]

mod determinism;
mod golden;
mod proof;
mod relists;
mod snapshots_of_state;
