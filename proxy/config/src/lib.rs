//! What an FSM proxy is told, and the pure decisions made from it.
//!
//! Nothing in this crate does I/O, reads a clock or draws a random number: the same [`Snapshot`] and the same request
//! give the same answer, in the data path and in `fsm replay request`.

pub mod ca;
pub mod decide;
pub mod discovery;
pub mod identity;
pub mod resource;
pub mod set;
pub mod snapshot;

pub use decide::{Connection, Decision, RequestHead, decide};
pub use identity::SpiffeId;
pub use resource::{Kind, ResourceName};
pub use set::{ConfigSet, Digest, Entry, Update};
pub use snapshot::Snapshot;

/// The generated resource messages; see `proto/config.proto`.
pub mod proto {
    #![allow(missing_docs, clippy::all, clippy::unwrap_used, reason = "generated code")]
    include!(concat!(env!("OUT_DIR"), "/fsm.config.v1.rs"));
}
