//! The Kubernetes kinds of FSM and of SMI, with their validation, and the parts of Kubernetes' own kinds that a mesh
//! reads. Plain data, no I/O.
//!
//! A kind here is two things: a type that deserializes from the object's JSON (fields that FSM doesn't know are skipped),
//! and a [`Validate`] implementation that says what is wrong with an object in terms of the object, the field and the
//! remedy. [`validate_json`] does both for any object of a known kind, and reports unknown fields too.

pub mod core;
pub mod duration;
pub mod kinds;
pub mod mesh_config;
pub mod meta;
pub mod names;
pub mod report;
pub mod smi;
mod unknown;
mod validate;

pub use kinds::KindInfo;
pub use mesh_config::MeshConfig;
pub use meta::ObjectMeta;
pub use report::{Problem, Report, Validate};
pub use smi::{HttpRouteGroup, TcpRoute, TrafficSplit, TrafficTarget};
pub use validate::validate_json;
