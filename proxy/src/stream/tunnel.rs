//! An HTTP/2 CONNECT stream as a connection (RFC 9113, section 8.5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::send::poll_capacity;
use super::splice::Abort;

/// The most that is asked of the flow-control window at once.
const LARGEST_WRITE: usize = 64 * 1024;

/// Both directions of a CONNECT stream. The end of a direction is END_STREAM, as FIN is for TCP; a reset is a reset.
pub struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    unread: Bytes,
    /// Dropped with the tunnel.
    _companion: Option<Box<dyn std::any::Any + Send>>,
}

impl Tunnel {
    /// The tunnel of an established CONNECT stream.
    pub fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        Self { send, receive, unread: Bytes::new(), _companion: None }
    }

    /// What sends, what receives, and what was received and not read yet.
    pub(super) fn halves(&mut self) -> (&mut SendStream<Bytes>, &mut RecvStream, Bytes) {
        (&mut self.send, &mut self.receive, std::mem::take(&mut self.unread))
    }

    /// Drops `companion` with the tunnel.
    pub fn with(mut self, companion: impl Send + 'static) -> Self {
        self._companion = Some(Box::new(companion));
        self
    }
}

impl Abort for Tunnel {
    fn abort(&mut self) {
        self.send.send_reset(Reason::CONNECT_ERROR);
    }
}

pub(super) fn io_error(error: h2::Error) -> io::Error {
    let kind = if error.is_reset() { io::ErrorKind::ConnectionReset } else { io::ErrorKind::BrokenPipe };
    io::Error::new(kind, error)
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let len = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..len]);
        self.unread.advance(len);
        self.receive.flow_control().release_capacity(len).map_err(io_error)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len().min(LARGEST_WRITE));
        let room = ready!(poll_capacity(&mut self.send, cx)).map_err(io_error)?;
        let len = room.min(buf.len());
        self.send.send_data(Bytes::copy_from_slice(&buf[..len]), false).map_err(io_error)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(io_error))
    }
}
