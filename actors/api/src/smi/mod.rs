//! SMI: TrafficTarget (access v1alpha3), HTTPRouteGroup and TCPRoute (specs v1alpha4), TrafficSplit (split v1alpha4, v1alpha2).

mod access;
mod specs;
mod split;
#[cfg(test)]
mod tests;

pub use access::{IdentityReference, RouteReference, TrafficTarget, TrafficTargetSpec};
pub use specs::{HttpMatch, HttpRouteGroup, HttpRouteGroupSpec, TcpMatch, TcpRoute, TcpRouteSpec};
pub use split::{Backend, MatchReference, TrafficSplit, TrafficSplitSpec};
