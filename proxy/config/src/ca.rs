//! Certificate signing: the generated messages, client and server of `proto/ca.proto`.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, reason = "generated code")]
include!(concat!(env!("OUT_DIR"), "/fsm.ca.v1.rs"));

/// The audience of the ServiceAccount tokens that prove a workload to the controller.
pub const TOKEN_AUDIENCE: &str = "fsm";
