//! Which pods get a sidecar, and what it looks like.

mod state;
#[cfg(test)]
mod tests;

pub use state::Injection;
