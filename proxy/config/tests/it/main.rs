//! What a proxy decides, given what it is told.

mod cache;
mod compile;
mod explanation;
mod inbound;
mod mesh;
mod outbound;
mod properties;
mod split;
