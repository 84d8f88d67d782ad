//! Recorded histories, as the log of a controller that watched them.

mod proof;
mod recording;
pub mod simulator;

pub use proof::with_proofs;
pub use recording::{Recorded, recorded};
