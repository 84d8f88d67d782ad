//! The control plane of FSM: actors over an event log.
//!
//! [`Fact`]s go into the log; [`Core`] computes from it, record by record, what every proxy is told. [`ControlPlane`] runs the
//! same state machines as supervised actors and streams the outcome; [`replay`] runs them on the past.

pub mod admission;
pub mod ca;
pub mod catalog;
pub mod cli;
pub mod concern;
pub mod control_plane;
pub mod core;
pub mod debug;
mod digest;
pub mod fact;
mod facts;
#[cfg(test)]
mod fixture;
mod json;
pub mod kubernetes;
pub mod metrics;
pub mod publish;
pub mod replay;
pub mod serve;
pub mod shell;
pub mod snapshots;
mod span;
pub mod telemetry;
mod trace;
pub mod watch;

pub use control_plane::ControlPlane;
pub use core::Core;
pub use fact::Fact;
pub use facts::FactSink;
pub use json::Json;
