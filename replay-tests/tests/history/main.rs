//! Recorded histories and what has to come out of them, every time.

mod determinism;
mod golden;
mod proof;
