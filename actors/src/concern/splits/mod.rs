//! Traffic shifting: which share of a service's traffic goes where.

mod actor;
mod state;

pub use actor::SplitsActor;
pub use state::Splits;
