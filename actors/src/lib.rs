//! The control plane of FSM: actors over an event log.
//!
//! [`Fact`]s go into the log; [`Core`] computes from it, record by record, what every proxy is told. [`ControlPlane`] runs the
//! same state machines as supervised actors and streams the outcome; [`replay`] runs them on the past.

pub mod catalog;
pub mod concern;
pub mod core;
pub mod fact;
pub mod publish;
pub mod replay;

pub use core::Core;
pub use fact::Fact;
