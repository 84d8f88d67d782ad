//! Traffic shifting: which share of a service's traffic goes where.

mod state;
#[cfg(test)]
mod tests;

pub use state::Splits;
