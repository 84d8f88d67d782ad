//! What goes on on an HTTP/1 connection below hyper: whether it rests between two requests, so that it needs no buffers; and
//! interim responses, which hyper's server has no way to write.
//!
//! An interim response leaves when hyper has handed over all that it had to write and asks for it to be sent. If it has more
//! to write first, which may be the rest of an earlier response or the beginning of the final one, the interim response is
//! dropped: it is no longer certain that it would stand between two messages.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::drain::Drain;

/// What is going on on one connection.
#[derive(Debug)]
pub struct Traffic {
    /// Requests whose answers have not come to their end.
    under_way: AtomicUsize,
    /// Counts reads and writes that moved something.
    moves: AtomicUsize,
    /// The last write had to wait.
    blocked: AtomicBool,
    /// The connection became one of another protocol.
    switched: AtomicBool,
    /// The drain has begun.
    ending: Arc<AtomicBool>,
    /// Interim responses wait to be written.
    has_interim: AtomicBool,
    interim: Mutex<BytesMut>,
}

/// One request, until dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Traffic>);

impl Traffic {
    /// None yet.
    pub fn until(drain: &Drain) -> Self {
        Self {
            under_way: AtomicUsize::new(0),
            moves: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
            switched: AtomicBool::new(false),
            ending: drain.begun(),
            has_interim: AtomicBool::new(false),
            interim: Mutex::default(),
        }
    }

    /// Counts a request until the value is dropped.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// A number that changes whenever something moves.
    pub fn moves(&self) -> usize {
        self.moves.load(Ordering::Relaxed)
    }

    /// Whether every answer was sent. If nothing has moved for some time besides, none is in a buffer either.
    pub fn is_at_rest(&self) -> bool {
        let busy = self.blocked.load(Ordering::Relaxed) || self.switched.load(Ordering::Relaxed);
        !busy && self.under_way.load(Ordering::Relaxed) == 0
    }

    /// Interim responses that wait to be written.
    fn take_interim(&self) -> Bytes {
        if !self.has_interim.swap(false, Ordering::Relaxed) {
            return Bytes::new();
        }
        self.interim.lock().unwrap_or_else(PoisonError::into_inner).split().freeze()
    }

    fn written(&self, polled: &Poll<io::Result<usize>>) {
        self.blocked.store(polled.is_pending(), Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::Relaxed);
    }
}

impl UnderWay {
    /// Whether no other request is to follow on the connection.
    pub fn is_last(&self) -> bool {
        self.0.ending.load(Ordering::Relaxed)
    }

    /// Writes an interim response to its client, before the final one.
    pub fn interim(&self, interim: &Response<()>) {
        let mut head = self.0.interim.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = interim.status().canonical_reason().unwrap_or_default();
        head.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", interim.status().as_str()).as_bytes());
        for (name, value) in interim.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
        self.0.has_interim.store(true, Ordering::Relaxed);
    }

    /// The request was the last one: its connection never rests again.
    pub fn switched(self) {
        self.0.switched.store(true, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection whose traffic is told.
#[derive(Debug)]
pub struct Told<T> {
    io: T,
    traffic: Arc<Traffic>,
    /// What is left of an interim response of which a part was written.
    begun: Bytes,
}

impl<T> Told<T> {
    pub fn new(io: T, traffic: Arc<Traffic>) -> Self {
        Self { io, traffic, begun: Bytes::new() }
    }

    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncWrite + Unpin> Told<T> {
    /// Writes what is begun to its end.
    fn poll_begun(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.begun.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.begun))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.begun.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Before something of hyper's is written: nothing comes between its parts.
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.traffic.has_interim.load(Ordering::Relaxed) {
            self.traffic.take_interim();
        }
        self.poll_begun(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Told<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() {
            self.traffic.moves.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Told<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_before(cx))?;
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.traffic.written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_before(cx))?;
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.traffic.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.traffic.has_interim.load(Ordering::Relaxed) && self.begun.is_empty() {
            self.begun = self.traffic.take_interim();
        }
        ready!(self.poll_begun(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";

    fn hints() -> Response<()> {
        Response::builder().status(103).header("link", "</a>").body(()).unwrap()
    }

    /// A connection that takes 8 bytes at a time, and all that its client has read in the end.
    fn narrow() -> (Told<tokio::io::DuplexStream>, UnderWay, tokio::task::JoinHandle<String>) {
        let (near, mut far) = tokio::io::duplex(8);
        let traffic = Arc::new(Traffic::until(&Drain::default()));
        let client = tokio::spawn(async move {
            let mut read = String::new();
            far.read_to_string(&mut read).await.unwrap();
            read
        });
        (Told::new(near, Arc::clone(&traffic)), traffic.begin(), client)
    }

    #[tokio::test]
    async fn an_interim_response_leaves_whole_before_what_is_written_next() {
        let (mut connection, under_way, client) = narrow();
        connection.write_all(b"first|").await.unwrap();
        under_way.interim(&hints());
        // As hyper does: asked to send what there is, and then given the next bytes whether or not that is done.
        let flushed = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut connection).poll_flush(cx))).await;
        assert!(flushed.is_pending());
        connection.write_all(b"|final").await.unwrap();
        drop(connection);
        assert_eq!(client.await.unwrap(), format!("first|{HINTS}|final"));
    }

    #[tokio::test]
    async fn an_interim_response_that_comes_between_is_dropped() {
        let (mut connection, under_way, client) = narrow();
        connection.write_all(b"begun").await.unwrap();
        under_way.interim(&hints());
        connection.write_all(b" and ended").await.unwrap();
        connection.flush().await.unwrap();
        drop(connection);
        assert_eq!(client.await.unwrap(), "begun and ended");
    }
}
