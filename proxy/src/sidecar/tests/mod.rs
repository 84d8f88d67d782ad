//! Sidecars on loopback addresses, with real sockets, certificates and applications.

mod app;
mod balancing;
mod client;
mod fleet;
mod floods;
mod http;
mod journey;
mod lifecycle;
pub(crate) mod mesh;
mod messages;
mod odd;
mod opaque;
mod overload;
mod policy;
mod swaps;
mod websocket;
