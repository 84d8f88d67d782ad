//! Joins the concerns' outputs into versions, and streams them to proxies.

mod publisher;

pub use publisher::{Followed, ProxyUpdate, Publisher};
