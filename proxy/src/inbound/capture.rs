//! Plain connections from outside the mesh, steered here with their addresses: all refused, but for the kubelet's question
//! whether the pod may go on starting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::accept::{Accepted, OriginalDst};
use crate::context::Context;
use crate::probe;
use crate::stream::reset;
use crate::throttle::Throttle;

/// Keeps the log short when somebody insists.
pub struct Captures(Throttle);

impl Default for Captures {
    fn default() -> Self {
        Self(Throttle::new(Duration::from_secs(10)))
    }
}

/// Nobody listens on this port: a connection to it is answered only if interception steers it here. The sidecar's startup
/// probe comes to it, so no other container starts before the pod's traffic is captured.
pub const READY_PORT: u16 = 15905;

/// Serves one connection.
pub async fn connection(context: Arc<Context>, captures: Arc<Captures>, accepted: Accepted) {
    // Where netfilter steers, it has translated the address, and says what it was.
    let called = OriginalDst::Kernel.of(&accepted.stream).ok().or_else(|| accepted.stream.local_addr().ok());
    if called.is_some_and(|called| called.port() == READY_PORT) {
        return probe::connection(context, accepted).await;
    }
    refuse(&context, &captures, accepted, called);
}

/// Refuses one connection.
fn refuse(context: &Context, captures: &Captures, accepted: Accepted, destination: Option<SocketAddr>) {
    context.metrics.plaintext_refused.add(1);
    if let Some(more) = captures.0.pass() {
        tracing::warn!(
            from = %accepted.peer,
            ?destination,
            more,
            "plain connections from outside the mesh are refused; add the client to the mesh or exclude the port"
        );
    }
    reset(accepted.stream);
}
