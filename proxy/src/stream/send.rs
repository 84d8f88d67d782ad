//! A body sent on an HTTP/2 stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body as _, Frame};

use super::body::{Body, BodyError};
use super::kept::Kept;
use crate::headers;

/// Sends `body` at the pace that the peer's windows allow, and notes in `kept` what was sent. A body that breaks off
/// resets the stream.
///
/// Ends early when the peer resets the stream, as it wants no more of it. Gives back what is left of the body.
pub async fn send_body(mut body: Body, mut stream: SendStream<Bytes>, kept: Option<Arc<Kept>>) -> Body {
    match send(&mut body, &mut stream, kept.as_deref()).await {
        Ok(()) | Err(Broken::Stream) => {}
        Err(Broken::Body(error)) => {
            tracing::debug!(%error, "a body was not sent to its end");
            stream.send_reset(error.reset_reason());
        }
    }
    body
}

enum Broken {
    Body(BodyError),
    Stream,
}

impl From<h2::Error> for Broken {
    fn from(_: h2::Error) -> Self {
        Self::Stream
    }
}

async fn send(body: &mut Body, stream: &mut SendStream<Bytes>, kept: Option<&Kept>) -> Result<(), Broken> {
    while let Some(frame) = next_frame(body, stream).await? {
        match frame.into_data() {
            Ok(data) => {
                if let Some(kept) = kept {
                    kept.add(&data);
                }
                let last = body.is_end_stream();
                send_data(data, last, stream).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    headers::strip_trailers(&mut trailers);
                    // Requests with trailers are too rare to be kept.
                    kept.inspect(|kept| kept.forget());
                    stream.send_trailers(trailers)?;
                    return Ok(());
                }
            }
        }
    }
    stream.send_data(Bytes::new(), true)?;
    Ok(())
}

async fn next_frame(body: &mut Body, stream: &mut SendStream<Bytes>) -> Result<Option<Frame<Bytes>>, Broken> {
    poll_fn(|cx| {
        if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Broken::Stream));
        }
        Pin::new(&mut *body).poll_frame(cx).map(|frame| frame.transpose().map_err(Broken::Body))
    })
    .await
}

/// Sends `data` at the pace that the peer's windows allow.
pub(super) async fn send_data(mut data: Bytes, last: bool, stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    if data.is_empty() && last {
        stream.send_data(data, true)?;
        return Ok(());
    }
    while !data.is_empty() {
        let room = capacity(stream, data.len()).await?;
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, last && data.is_empty())?;
    }
    Ok(())
}

/// Waits until at least one byte of `wanted` may be sent.
async fn capacity(stream: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, h2::Error> {
    stream.reserve_capacity(wanted);
    poll_fn(|cx| poll_capacity(stream, cx)).await
}

pub(super) fn poll_capacity(
    stream: &mut SendStream<Bytes>,
    cx: &mut std::task::Context<'_>,
) -> Poll<Result<usize, h2::Error>> {
    loop {
        match stream.capacity() {
            0 => {}
            room => return Poll::Ready(Ok(room)),
        }
        match std::task::ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error)),
            None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
        }
    }
}
