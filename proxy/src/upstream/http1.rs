//! HTTP/1.1 connections, kept alive and used again.
//!
//! A connection has no task of its own: whoever waits for its answer, or reads the answer's body, reads and writes
//! it too. So an exchange wakes one task, not two in turn, and an idle connection is a socket and little else.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::dial::{DialError, Dialer};
use super::overheard::{Awaiting, Overheard};
use super::{Failed, Peer, Queue, UpstreamError};
use crate::field_names::FieldNames;
use crate::headers;
use crate::limits::Limits;
use crate::stream::{Body, with_head};

/// A connection is not used again after this long: applications close theirs after 5 s and more.
const IDLE_AFTER: Duration = Duration::from_secs(4);
/// Idle connections that are kept for one address.
const IDLE_CONNECTIONS: usize = 128;

/// Idle connections by address.
pub struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    head_bytes: u32,
    keeps_case: bool,
    field_names: FieldNames,
}

struct Idle {
    line: Line,
    since: Instant,
}

/// A connection, which makes progress only when it is asked to.
struct Line {
    send: SendRequest<Body>,
    /// None once it has ended.
    connection: Option<Pin<Box<Driven>>>,
    awaiting: Awaiting,
}

type Driven = Connection<TokioIo<Overheard<TcpStream>>, Body>;

impl Line {
    /// Reads and writes what can be, and has the task woken when there is more. False: the connection has ended.
    fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        match connection.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a kept connection ended");
                }
                self.connection = None;
                false
            }
        }
    }

    /// Whether an idle connection can be used; nobody was woken if it has ended.
    fn is_usable(&mut self) -> bool {
        self.advance(&mut nobody()) && self.send.is_ready()
    }
}

/// For what is woken by the progress of a [`Line`] only, by the very task that asks next.
fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Pool {
    /// Header names keep their case with `keeps_case`, if the other connection was HTTP/1 too; others are written as
    /// `field_names` says.
    pub fn new(limits: &Limits, keeps_case: bool, field_names: FieldNames) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), head_bytes: limits.head_bytes, keeps_case, field_names })
    }

    /// Sends a request, on an idle connection if there is one.
    pub async fn request(
        self: &Arc<Self>,
        dialer: &Dialer,
        peer: Peer<'_>,
        timeout: Duration,
        mut request: Box<Request<Body>>,
    ) -> Result<Response<Body>, Failed> {
        let address = peer.application;
        with_head(&mut request, headers::into_http1);
        if !request.body().is_end_stream() && !request.headers().contains_key(CONTENT_LENGTH) {
            // Said explicitly, as hyper takes GET and HEAD to have no body otherwise.
            request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut dialled = false;
        loop {
            let line = match self.take(address) {
                Some(line) => line,
                // Rare, and large: it has a place of its own.
                None => match Box::pin(self.dial(dialer, peer, timeout)).await {
                    Ok(line) => {
                        dialled = true;
                        line
                    }
                    Err(error) => return Err(Failed { error: error.into(), request: Some(request) }),
                },
            };
            // The application may close an idle connection at any time, even while the request is on its way.
            match self.send(address, line, request).await {
                Err(Failed { request: Some(unsent), .. }) if !dialled => request = unsent,
                Err(failed) => return Err(Failed { request: None, ..failed }),
                answered => return answered,
            }
        }
    }

    async fn send(
        self: &Arc<Self>,
        address: SocketAddr,
        mut line: Line,
        mut request: Box<Request<Body>>,
    ) -> Result<Response<Body>, Failed> {
        let again = headers::is_safe(request.method()) && request.body().is_end_stream();
        let leaving = if again { head(&request) } else { std::mem::take(&mut *request) };
        line.awaiting.begin();
        let mut answer = pin!(line.send.try_send_request(leaving));
        let answered = poll_fn(|cx| {
            line.advance(cx);
            answer.as_mut().poll(&mut nobody())
        });
        match answered.await {
            Ok(response) => {
                let (parts, incoming) = response.into_parts();
                let mut exchange = Exchange { incoming, line: Some(line), pool: Arc::downgrade(self), address };
                if exchange.incoming.is_end_stream() {
                    poll_fn(|cx| {
                        exchange.finish(cx);
                        Poll::Ready(())
                    })
                    .await;
                }
                Ok(Response::from_parts(parts, Body::driven(exchange)))
            }
            Err(mut error) => {
                let unsent = error.take_message().map(|unsent| *request = unsent).is_some();
                let error = UpstreamError::Http1 { peer: address, source: error.into_error() };
                Err(Failed { error, request: (again || unsent).then_some(request) })
            }
        }
    }

    async fn dial(&self, dialer: &Dialer, peer: Peer<'_>, timeout: Duration) -> Result<Line, DialError> {
        let _waits = peer.queue.map(Queue::enter).transpose()?;
        let address = peer.application;
        let stream = dialer.tcp(address, timeout).await?;
        let awaiting = Awaiting::default();
        let (send, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(self.keeps_case)
            .title_case_headers(self.field_names.is_title())
            .max_header_size(self.head_bytes as usize)
            .handshake(TokioIo::new(Overheard::new(stream, awaiting.clone())))
            .await
            .map_err(|source| DialError::Http1 { address, source: Arc::new(source) })?;
        Ok(Line { send, connection: Some(Box::pin(connection)), awaiting })
    }

    fn take(&self, address: SocketAddr) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&address)?;
        while let Some(Idle { mut line, since }) = kept.pop() {
            if since.elapsed() > IDLE_AFTER {
                kept.clear();
            } else if line.is_usable() {
                return Some(line);
            }
        }
        None
    }

    fn put(&self, address: SocketAddr, line: Line) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(address).or_default();
        if kept.len() < IDLE_CONNECTIONS {
            kept.push(Idle { line, since: Instant::now() });
        }
    }

    /// Closes connections that have been idle for long.
    pub fn tidy(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            kept.retain_mut(|one| one.since.elapsed() <= IDLE_AFTER && one.line.is_usable());
            !kept.is_empty()
        });
    }
}

/// The same request again, for one that has no body.
fn head(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// The body of an answer. Reading it drives the connection, which goes back to the pool at its end.
struct Exchange {
    incoming: Incoming,
    line: Option<Line>,
    pool: Weak<Pool>,
    address: SocketAddr,
}

impl Exchange {
    fn finish(&mut self, cx: &mut Context<'_>) {
        let (Some(pool), Some(mut line)) = (self.pool.upgrade(), self.line.take()) else { return };
        // It has yet to notice the end of the response.
        if !line.advance(cx) {
            return;
        }
        let address = self.address;
        if line.send.is_ready() {
            return pool.put(address, line);
        }
        // It is still sending the request.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let sent = poll_fn(|cx| match line.advance(cx) {
                    true if !line.send.is_ready() => Poll::Pending,
                    open => Poll::Ready(open),
                });
                if let Ok(true) = tokio::time::timeout(IDLE_AFTER, sent).await {
                    pool.put(address, line);
                }
            });
        }
    }
}

impl http_body::Body for Exchange {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // The connection reads a body when it is asked for it.
        let mut polled = Pin::new(&mut self.incoming).poll_frame(&mut nobody());
        if polled.is_pending()
            && let Some(line) = &mut self.line
        {
            line.advance(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(&mut nobody());
        }
        if polled.is_ready() && (self.incoming.is_end_stream() || matches!(polled, Poll::Ready(None))) {
            self.finish(cx);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
