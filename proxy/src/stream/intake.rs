//! Reads as much as there is in one system call, for readers that ask for little at a time: TLS asks for 4 KiB.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::{spare, writes_through};

/// A connection with a buffer before it, which it has only while there is something in it.
#[derive(Debug)]
pub struct Intake<T> {
    io: T,
    buffer: Option<Box<[u8]>>,
    read: usize,
    taken: usize,
}

impl<T> Intake<T> {
    pub fn new(io: T) -> Self {
        Self { io, buffer: None, read: 0, taken: 0 }
    }

    /// Gives out of the buffer what `buf` has room for.
    fn give(&mut self, buffer: Box<[u8]>, buf: &mut ReadBuf<'_>) {
        let len = (self.read - self.taken).min(buf.remaining());
        buf.put_slice(&buffer[self.taken..self.taken + len]);
        self.taken += len;
        if self.taken < self.read {
            self.buffer = Some(buffer);
        } else {
            spare::give_back(buffer);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Intake<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(buffer) = self.buffer.take() {
            self.give(buffer, buf);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= spare::LEN {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let mut buffer = spare::take();
        let mut into = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut into);
        let read = into.filled().len();
        if !matches!(polled, Poll::Ready(Ok(()))) {
            spare::give_back(buffer);
            return polled;
        }
        (self.read, self.taken) = (read, 0);
        self.give(buffer, buf);
        Poll::Ready(Ok(()))
    }
}

writes_through!(Intake<T>, io);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn everything_comes_in_order_and_the_buffer_is_given_back() {
        let (near, mut far) = tokio::io::duplex(200_000);
        let text: Vec<u8> = (0..40_000_u32).flat_map(u32::to_be_bytes).collect();
        far.write_all(&text).await.unwrap();
        let mut intake = Intake::new(near);
        let mut received = vec![0; 1000];
        intake.read_exact(&mut received).await.unwrap();
        assert!(intake.buffer.is_some());
        received.resize(text.len(), 0);
        intake.read_exact(&mut received[1000..]).await.unwrap();
        assert!(received == text);
        assert!(intake.buffer.is_none());
        drop(far);
        assert_eq!(intake.read(&mut received).await.unwrap(), 0);
    }
}
