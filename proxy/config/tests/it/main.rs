//! What a proxy decides, given what it is told.
#![allow(clippy::unwrap_used, reason = "tests may panic, their helpers too")]

mod cache;
mod compile;
mod explanation;
mod inbound;
mod journey;
mod mesh;
mod outbound;
mod properties;
mod split;
