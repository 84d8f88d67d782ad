//! Sidecars on loopback addresses, with real sockets, certificates and applications.

pub(crate) mod app;
mod balancing;
mod carried;
mod change;
pub(crate) mod client;
mod fleet;
mod floods;
mod health;
mod http;
mod http2_rules;
mod interim;
mod journey;
mod lifecycle;
pub(crate) mod mesh;
mod messages;
mod names_of_fields;
mod observed;
mod odd;
mod opaque;
mod outliers;
mod overload;
mod pending;
mod policy;
mod responses;
mod retries;
mod swaps;
mod websocket;
