//! The body of every request and response that passes through.

use std::any::Any;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::Request;
use http::request::Parts;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use smallvec::SmallVec;

use super::meter::{End, Meter};

/// How often other tasks get their turn before a head leaves alone.
const TURNS: usize = 2;

/// A body, streamed: no more of it is in memory than the flow-control windows hold.
pub struct Body {
    source: Source,
    /// The first frame, if it was read ahead.
    ahead: Option<Frame<Bytes>>,
    /// Tells before anything that is attached is dropped.
    meter: Option<Meter>,
    /// Dropped when the body has come to its end or is given up: what it counts or keeps open lasts until then.
    attached: SmallVec<[Box<dyn Any + Send>; 2]>,
}

enum Source {
    Text(Option<Bytes>),
    Http1(Incoming),
    /// Reading it makes its connection go on.
    Driven(Box<dyn http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin>),
    Http2 {
        stream: RecvStream,
        data_ended: bool,
    },
    Broken(Option<BodyError>),
    Again {
        beginning: VecDeque<Bytes>,
        rest: Box<Body>,
    },
    Switched(Weak<Companions>),
    Wrapped(Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin>),
}

type Companions = Mutex<Vec<Box<dyn Any + Send>>>;

/// What was attached to the response that agreed to switch protocols: it lasts as long as what follows.
pub struct Held(#[expect(dead_code, reason = "held until it is dropped")] Arc<Companions>);

/// A body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the HTTP/1 body broke off: {0}")]
    Http1(#[from] hyper::Error),
    #[error("the HTTP/2 body broke off: {0}")]
    Http2(#[from] h2::Error),
    #[error("the request took longer than its service's policy lets it take")]
    TooLong,
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

    /// A body whose `beginning` was taken from it.
    pub fn again(beginning: Vec<Bytes>, rest: Self) -> Self {
        Self::from(Source::Again { beginning: beginning.into(), rest: Box::new(rest) })
    }

    /// A body that drives the connection which it comes from.
    pub fn driven(body: impl http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static) -> Self {
        Self::from(Source::Driven(Box::new(body)))
    }

    /// What is made of another body.
    pub(super) fn wrapped(
        body: impl http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
    ) -> Self {
        Self::from(Source::Wrapped(Box::new(body)))
    }

    /// No body, of a response after which the connection speaks another protocol.
    pub fn switched() -> (Self, Held) {
        let held = Arc::new(Companions::default());
        (Self::from(Source::Switched(Arc::downgrade(&held))), Held(held))
    }

    /// Drops `companion` when this body ends, or when what follows it ends.
    pub fn attach(&mut self, companion: impl Send + 'static) {
        let companion = Box::new(companion);
        match &self.source {
            Source::Switched(held) => {
                if let Some(held) = held.upgrade() {
                    held.lock().unwrap_or_else(PoisonError::into_inner).push(companion);
                }
            }
            _ => self.attached.push(companion),
        }
    }

    /// Has `meter` count what passes. A body has one at most.
    pub fn measure(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// Reads the first frame ahead if it is about to come, so that it can leave together with the head: one TLS record
    /// and one system call instead of two. Never waits for the other end.
    ///
    /// A body of HTTP/1 is read only once it is asked for, by the task of its connection; that one gets its turns.
    pub async fn read_ahead(&mut self) {
        for _ in 0..TURNS {
            if self.ahead.is_some() || http_body::Body::is_end_stream(self) {
                return;
            }
            let polled = poll_fn(|cx| Poll::Ready(self.poll_source(cx))).await;
            if let Poll::Ready(frame) = polled {
                match frame {
                    Some(Ok(frame)) => self.ahead = Some(frame),
                    Some(Err(error)) => self.source = Source::Broken(Some(error)),
                    None => {
                        self.source = Source::Text(None);
                        self.meter.iter_mut().for_each(|meter| meter.ended(End::Whole));
                    }
                }
                return;
            }
            if !matches!(self.source, Source::Http1(_)) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match &mut self.source {
            Source::Text(text) => text.take().map(|text| Ok(Frame::data(text))),
            Source::Http1(incoming) => {
                ready!(http_body::Body::poll_frame(Pin::new(incoming), cx)).map(|frame| frame.map_err(BodyError::Http1))
            }
            Source::Driven(body) => {
                ready!(http_body::Body::poll_frame(Pin::new(body), cx)).map(|frame| frame.map_err(BodyError::Http1))
            }
            Source::Http2 { stream, data_ended } => {
                ready!(poll_http2(stream, data_ended, cx)).map(|frame| frame.map_err(BodyError::Http2))
            }
            Source::Switched(_) => None,
            Source::Wrapped(body) => ready!(http_body::Body::poll_frame(Pin::new(body), cx)),
            Source::Broken(error) => error.take().map(Err),
            Source::Again { beginning, rest } => match beginning.pop_front() {
                Some(data) => Some(Ok(Frame::data(data))),
                None => ready!(http_body::Body::poll_frame(Pin::new(&mut **rest), cx)),
            },
        })
    }

    fn count(&mut self, frame: &Option<Result<Frame<Bytes>, BodyError>>) {
        let last = http_body::Body::is_end_stream(self);
        let Some(meter) = &mut self.meter else { return };
        match frame {
            Some(Ok(frame)) => {
                meter.count(frame.data_ref().map_or(0, Bytes::len));
                if last || frame.is_trailers() {
                    meter.ended(End::Whole);
                }
            }
            Some(Err(_)) => meter.ended(End::Broken),
            None => meter.ended(End::Whole),
        }
    }

    fn ended<T>(&mut self) -> Poll<Option<T>> {
        self.meter = None;
        self.attached.clear();
        Poll::Ready(None)
    }
}

impl From<Source> for Body {
    fn from(source: Source) -> Self {
        Self { source, ahead: None, meter: None, attached: SmallVec::new() }
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
        let frame = match self.ahead.take() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(self.poll_source(cx)),
        };
        if self.meter.is_some() {
            self.count(&frame);
        }
        match frame {
            None => self.ended(),
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.ahead.is_some() {
            return false;
        }
        match &self.source {
            Source::Text(text) => text.is_none(),
            Source::Http1(incoming) => incoming.is_end_stream(),
            Source::Driven(body) => body.is_end_stream(),
            Source::Http2 { stream, .. } => stream.is_end_stream(),
            Source::Switched(_) => true,
            Source::Wrapped(body) => body.is_end_stream(),
            Source::Broken(error) => error.is_none(),
            Source::Again { beginning, rest } => beginning.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            // Only bodies that go to HTTP/2, which needs no hint, are read ahead.
            _ if self.ahead.is_some() => SizeHint::default(),
            Source::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Switched(_) => SizeHint::with_exact(0),
            Source::Http1(incoming) => incoming.size_hint(),
            Source::Driven(body) => body.size_hint(),
            Source::Wrapped(body) => body.size_hint(),
            Source::Http2 { stream, .. } if stream.is_end_stream() => SizeHint::with_exact(0),
            Source::Http2 { .. } | Source::Broken(_) | Source::Again { .. } => SizeHint::default(),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

/// Works on the head of a request in its place.
pub fn with_head<T>(request: &mut Request<Body>, work: impl FnOnce(&mut Parts) -> T) -> T {
    let (mut parts, body) = std::mem::take(request).into_parts();
    let result = work(&mut parts);
    *request = Request::from_parts(parts, body);
    result
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
            Self::Http1(_) | Self::TooLong => h2::Reason::CANCEL,
            Self::Http2(error) => error.reason().unwrap_or(h2::Reason::CANCEL),
        }
    }
}
