//! Sidecars on loopback addresses, with real sockets, certificates and applications.

pub(crate) mod app;
mod balancing;
pub(crate) mod client;
mod fleet;
mod floods;
mod http;
mod interim;
mod journey;
mod lifecycle;
pub(crate) mod mesh;
mod messages;
mod names_of_fields;
mod observed;
mod odd;
mod opaque;
mod overload;
mod policy;
mod retries;
mod swaps;
mod websocket;
