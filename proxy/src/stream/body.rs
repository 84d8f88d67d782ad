//! The body of every request and response that passes through.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

/// A body, streamed: no more of it is in memory than the flow-control windows hold.
pub struct Body {
    source: Source,
    /// Dropped when the body has come to its end or is given up: what it counts or keeps open lasts until then.
    attached: Vec<Box<dyn Any + Send>>,
}

enum Source {
    Text(Option<Bytes>),
    Http1(Incoming),
    Http2 { stream: RecvStream, data_ended: bool },
}

/// A body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the HTTP/1 body broke off: {0}")]
    Http1(#[from] hyper::Error),
    #[error("the HTTP/2 body broke off: {0}")]
    Http2(#[from] h2::Error),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::from(Source::Text(None))
    }

    /// A short text of the proxy's own.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self::from(Source::Text(Some(text.into())))
    }

    /// Drops `companion` when this body ends.
    pub fn attach(&mut self, companion: impl Send + 'static) {
        self.attached.push(Box::new(companion));
    }

    fn ended<T>(&mut self) -> Poll<Option<T>> {
        self.attached.clear();
        Poll::Ready(None)
    }
}

impl From<Source> for Body {
    fn from(source: Source) -> Self {
        Self { source, attached: Vec::new() }
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Self::from(Source::Http1(incoming))
    }
}

impl From<RecvStream> for Body {
    fn from(stream: RecvStream) -> Self {
        Self::from(Source::Http2 { stream, data_ended: false })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut self.source {
            Source::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
            Source::Http1(incoming) => {
                ready!(Pin::new(incoming).poll_frame(cx)).map(|frame| frame.map_err(BodyError::Http1))
            }
            Source::Http2 { stream, data_ended } => {
                ready!(poll_http2(stream, data_ended, cx)).map(|frame| frame.map_err(BodyError::Http2))
            }
        };
        match frame {
            None => self.ended(),
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Text(text) => text.is_none(),
            Source::Http1(incoming) => incoming.is_end_stream(),
            Source::Http2 { stream, .. } => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Http1(incoming) => incoming.size_hint(),
            Source::Http2 { stream, .. } if stream.is_end_stream() => SizeHint::with_exact(0),
            Source::Http2 { .. } => SizeHint::default(),
        }
    }
}

fn poll_http2(
    stream: &mut RecvStream,
    data_ended: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    if !*data_ended {
        match ready!(stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // Taken by a writer that asks for more only when it has room: the window may open again.
                let released = stream.flow_control().release_capacity(data.len());
                return Poll::Ready(Some(released.map(|()| Frame::data(data))));
            }
            Some(Err(error)) if is_early_answer(&error) => {}
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {}
        }
        *data_ended = true;
    }
    match ready!(stream.poll_trailers(cx)) {
        Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
        Err(error) if is_early_answer(&error) => Poll::Ready(None),
        Err(error) => Poll::Ready(Some(Err(error))),
    }
}

/// A server that has answered in full without needing the rest of the request says so by a reset without error
/// (RFC 9113, section 8.1).
fn is_early_answer(error: &h2::Error) -> bool {
    error.is_reset() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

impl BodyError {
    /// The reason with which an HTTP/2 stream that carries this body on is reset.
    pub fn reset_reason(&self) -> h2::Reason {
        match self {
            Self::Http1(_) => h2::Reason::CANCEL,
            Self::Http2(error) => error.reason().unwrap_or(h2::Reason::CANCEL),
        }
    }
}
