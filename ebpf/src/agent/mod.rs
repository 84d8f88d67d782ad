//! The node's agent: watches the pods of its node, and intercepts those with a sidecar.
//!
//! `pods` says which pods are to be intercepted and how, from their objects alone. `place` finds a pod's cgroups and
//! namespace on the node. `node` brings the kernel in line with the two. `run` connects them with the Kubernetes API.

mod node;
mod place;
mod pods;
mod run;
mod serve;

pub use node::{Node, Settings, Summary, netns_number};
pub use place::{Place, PlaceError, locate};
pub use pods::{PROXY_CONTAINER, PROXY_UUID, Wanted, mesh_rules, wanted};
pub use run::{Asked, Options, run};
