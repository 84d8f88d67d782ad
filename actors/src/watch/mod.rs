//! Sources of facts: the Kubernetes API's watches, one per kind.
//!
//! What a watcher promises: every change that the API server tells is in the log, in the server's order within the kind;
//! nothing is filtered or merged by policy. After an interruption it lists again and records what differs from what
//! the log knew. Objects stay as the server sent them, managedFields included: they say who changed what.

mod kind;
mod object;
mod run;
#[cfg(test)]
mod tests;

pub use kind::{KindWatch, Seen};
pub use object::WatchedObject;
pub use run::{WatchError, watch_all};
