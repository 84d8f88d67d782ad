//! Who can be reached and how, and what servers allow.

mod actor;
mod endpoints;
mod state;
#[cfg(test)]
mod tests;

pub use actor::RoutesActor;
pub use state::Routes;
