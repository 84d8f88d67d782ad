//! Which pods get a sidecar, and what it looks like.

mod actor;
mod state;

pub use actor::InjectionActor;
pub use state::Injection;
