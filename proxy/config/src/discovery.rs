//! The stream: the generated messages, client and server of `proto/stream.proto`.
#![allow(missing_docs, clippy::all, clippy::unwrap_used, reason = "generated code")]
include!(concat!(env!("OUT_DIR"), "/envoy.service.discovery.v3.rs"));

/// The one type that proxies subscribe to, as a wildcard; see `proto/stream.proto`.
pub const CONFIG_TYPE_URL: &str = "type.googleapis.com/fsm.config.v1.Config";
