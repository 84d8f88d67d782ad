//! The body of a request while its answer is awaited: kept as far as the request may have to be sent again.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use h2::SendStream;
use tokio_util::task::AbortOnDropHandle;

use crate::stream::{Body, Kept, send_body};

/// The body of a request on its way.
pub struct Sending {
    kept: Arc<Kept>,
    state: SendingState,
}

#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one, and a box would be an allocation each time"
)]
enum SendingState {
    Ended(Body),
    /// Given up with the request: the stream is reset.
    UnderWay(AbortOnDropHandle<Body>),
}

impl Sending {
    /// Mostly the first turn sends all of it, together with the head.
    pub fn begin(body: Body, stream: SendStream<Bytes>) -> Self {
        let kept = Arc::new(Kept::default());
        let mut sending = Box::pin(send_body(body, stream, Some(Arc::clone(&kept))));
        let state = match sending.as_mut().now_or_never() {
            Some(rest) => SendingState::Ended(rest),
            None => SendingState::UnderWay(AbortOnDropHandle::new(tokio::spawn(sending))),
        };
        Self { kept, state }
    }

    /// The response has begun: the rest of the body is sent without being kept.
    pub fn answered(self) {
        self.kept.forget();
        if let SendingState::UnderWay(task) = self.state {
            drop(task.detach());
        }
    }

    /// The whole body, for another peer, if what was sent of it was kept.
    pub async fn again(self) -> Option<Body> {
        let rest = match self.state {
            SendingState::Ended(rest) => rest,
            // The stream has ended, and with it the sending.
            SendingState::UnderWay(task) => task.await.ok()?,
        };
        Some(Body::again(self.kept.take()?, rest))
    }
}
