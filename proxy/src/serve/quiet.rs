//! Whether an HTTP/1 connection rests between two requests, so that it needs no buffers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

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
}

impl<T> Told<T> {
    pub fn new(io: T, traffic: Arc<Traffic>) -> Self {
        Self { io, traffic }
    }

    pub fn into_inner(self) -> T {
        self.io
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
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.traffic.written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.traffic.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
