//! Traffic shifting: which share of a service's traffic goes where.

mod actor;
mod state;
#[cfg(test)]
mod tests;

pub use actor::SplitsActor;
pub use state::Splits;
