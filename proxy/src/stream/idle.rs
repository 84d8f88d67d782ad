//! Whether bytes pass on a connection, and how many.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::meter::Passed;

/// When bytes passed last.
pub struct Activity {
    start: Instant,
    last_ms: AtomicU64,
    passed: Option<Arc<Passed>>,
}

impl Activity {
    /// Has `passed` count the bytes.
    pub fn new(passed: Option<Arc<Passed>>) -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0), passed }
    }

    /// Bytes came from the connection's socket.
    pub fn read(&self, bytes: usize) {
        self.seen();
        self.passed.iter().for_each(|passed| passed.read(bytes));
    }

    /// Bytes went into the connection's socket.
    pub fn written(&self, bytes: usize) {
        self.seen();
        self.passed.iter().for_each(|passed| passed.written(bytes));
    }

    fn seen(&self) {
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    /// Waits until nothing has passed for `idle`.
    pub async fn none_for(&self, idle: Duration) {
        loop {
            let last = self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let end = last + idle;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// A connection whose bytes are seen by an [`Activity`].
pub struct Watched<'a, T> {
    inner: &'a mut T,
    activity: &'a Activity,
}

impl<'a, T> Watched<'a, T> {
    pub fn new(inner: &'a mut T, activity: &'a Activity) -> Self {
        Self { inner, activity }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<'_, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.inner).poll_read(cx, buf))?;
        self.activity.read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.inner).poll_write(cx, buf))?;
        self.activity.written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}
