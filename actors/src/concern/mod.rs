//! The concerns of the mesh: each one turns the shared read model into the resources that it is responsible for.
//!
//! A concern's folder holds `state.rs` (the pure state machine), `actor.rs` (its shell) and `tests.rs`. How views become
//! messages is in [`message`]; what a pod with a sidecar looks like is in [`pod`].

pub mod certs;
pub mod injection;
pub mod message;
pub mod pod;
mod resources;
pub mod routes;
mod shell;
pub mod splits;

use bytes::Bytes;
use fsm_proxy_config::{Digest, ResourceName};
use fsm_store::Seq;

pub use resources::Resources;
pub(crate) use resources::member;
pub use shell::{ConcernActor, ConcernDone, ConcernMachine, FromCore};

use crate::catalog::{Audience, Catalog, Delta, ObjectName};
use crate::fact::Fact;

/// A pure state machine over the log.
///
/// It sees every record once, in order, each with the catalog as of that record. What it puts out depends on nothing else, so
/// it is the same in every process and however records are grouped.
pub trait Concern: Default + Send + Unpin + 'static {
    /// Its name in logs, metrics and state digests.
    const NAME: &'static str;

    /// Applies one record; gives the resources that changed.
    fn apply(&mut self, step: &Step<'_>) -> Vec<Change>;

    /// A digest of the whole state.
    fn digest(&self) -> Digest;

    /// Hashes what changed since the last call, so that the digest costs nothing before the next change.
    fn settle_digest(&mut self) {}
}

/// One record as concerns see it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    pub seq: Seq,
    pub fact: &'a Fact,
    /// The catalog as of this record.
    pub catalog: &'a Catalog,
    /// What this record changed in it.
    pub delta: &'a Delta,
}

/// A resource, and the one proxy that it belongs to if every proxy has its own of that name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    pub name: ResourceName,
    pub proxy: Option<ObjectName>,
}

impl ResourceKey {
    /// A resource that is the same for all proxies that are told about it.
    pub fn shared(name: ResourceName) -> Self {
        Self { name, proxy: None }
    }

    /// A resource of one proxy.
    pub fn of(proxy: ObjectName, name: ResourceName) -> Self {
        Self { name, proxy: Some(proxy) }
    }
}

/// The content of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The encoded message.
    pub bytes: Bytes,
    /// Who may be told. A resource of one proxy is for that proxy only, whatever is said here.
    pub audience: Audience,
}

/// A resource that changed; gone if there is no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: ResourceKey,
    pub told: Option<Told>,
}
