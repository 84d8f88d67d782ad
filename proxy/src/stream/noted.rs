//! A body of which is noted what passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Body, BodyError};
use super::kept::Kept;

/// A request's body that may have to be sent again, in a message of its own.
struct Noted {
    body: Body,
    kept: Arc<Kept>,
}

impl Body {
    /// This body, which notes in `kept` what is read of it.
    pub fn noted(self, kept: Arc<Kept>) -> Self {
        if self.is_end_stream() {
            kept.complete();
        }
        Self::wrapped(Noted { body: self, kept })
    }
}

impl http_body::Body for Noted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.kept.complete(),
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => {
                    self.kept.add(data);
                    if self.body.is_end_stream() {
                        self.kept.complete();
                    }
                }
                // Requests with trailers are too rare to be kept.
                None => self.kept.forget(),
            },
            Some(Err(_)) => self.kept.forget(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
