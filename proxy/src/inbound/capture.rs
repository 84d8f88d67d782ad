//! Plain connections from outside the mesh, steered here with their addresses: all refused.

use std::sync::Arc;
use std::time::Duration;

use crate::accept::Accepted;
use crate::context::Context;
use crate::stream::reset;
use crate::throttle::Throttle;

/// Keeps the log short when somebody insists.
pub struct Captures(Throttle);

impl Default for Captures {
    fn default() -> Self {
        Self(Throttle::new(Duration::from_secs(10)))
    }
}

/// Refuses one connection.
pub async fn refuse(context: Arc<Context>, captures: Arc<Captures>, accepted: Accepted) {
    context.metrics.plaintext_refused.add(1);
    if let Some(more) = captures.0.pass() {
        let destination = accepted.stream.local_addr().ok();
        tracing::warn!(
            from = %accepted.peer,
            ?destination,
            more,
            "plain connections from outside the mesh are refused; add the client to the mesh or exclude the port"
        );
    }
    reset(accepted.stream);
}
