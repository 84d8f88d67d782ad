//! Joins the concerns' outputs into versions, and streams them to proxies.

mod actor;
mod barrier;
mod counters;
mod delivery;
mod groups;
mod publisher;
mod service;
mod session;

pub use actor::{ConfigOf, PublisherActor, PublisherMachine};
pub use barrier::{Joined, Part};
pub use counters::Counters;
pub use delivery::{Answer, Delivery, Version};
pub use publisher::{Followed, ProxyUpdate, Publisher};
pub use service::{PeerIdentity, StreamService};
