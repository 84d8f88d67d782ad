//! What an FSM proxy is told, and the pure decisions made from it.
//!
//! Nothing in this crate does I/O, reads a clock or draws a random number: the same [`Snapshot`] and the same request
//! give the same answer, in the data path and in `fsm replay request`.

mod authority;
pub mod ca;
pub mod cache;
mod compile;
pub mod decide;
pub mod discovery;
mod first;
mod flaw;
pub mod head;
pub mod identity;
pub mod journey;
mod json;
pub mod model;
mod names;
pub mod observe;
mod parse;
mod policy;
mod pool;
pub mod resource;
mod route;
pub mod set;
pub mod snapshot;
mod split;
mod trace;
pub mod traffic;
pub mod wire;

pub use decide::{
    Allow, Backend, Connection, Decision, Forward, Passthrough, Refusal, RefusalKind, RequestHead, decide, explain,
};
pub use first::FirstBytes;
pub use flaw::Flaw;
pub use identity::SpiffeId;
pub use journey::{Asked, Journey, Verdict};
pub use model::{Endpoint, Protocol, Service, ServicePort, Settings, Workload};
pub use names::{Family, Names};
pub use observe::{AccessLog, LogFormat, RemoteLog, Share, Tracing};
pub use parse::check;
pub use pool::Attachment;
pub use resource::{InvalidResource, Kind, Resource, ResourceName};
pub use set::{ConfigSet, Digest, Entry, Update};
pub use snapshot::Snapshot;
pub use traffic::TrafficPolicy;
pub use wire::InvalidResponse;

/// The generated resource messages; see `proto/config.proto`.
pub mod proto {
    #![allow(missing_docs, clippy::all, clippy::unwrap_used, reason = "generated code")]
    include!(concat!(env!("OUT_DIR"), "/fsm.config.v1.rs"));
}
