//! Which pods get a sidecar, and what it looks like.

mod actor;
mod state;
#[cfg(test)]
mod tests;

pub use actor::InjectionActor;
pub use state::Injection;
