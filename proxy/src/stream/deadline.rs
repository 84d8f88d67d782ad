//! A body that has to end in time.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::body::{Body, BodyError};

struct Bounded {
    body: Body,
    deadline: Pin<Box<Sleep>>,
}

impl Body {
    /// This body, which breaks off at `deadline`.
    pub fn until(self, deadline: Instant) -> Self {
        if self.is_end_stream() {
            return self;
        }
        Self::wrapped(Bounded { body: self, deadline: Box::pin(tokio::time::sleep_until(deadline)) })
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => self.deadline.as_mut().poll(cx).map(|()| Some(Err(BodyError::TooLong))),
            ready => ready,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
