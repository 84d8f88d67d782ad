//! A connection whose first bytes were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

use crate::stream::writes_through;

/// Gives back `head` before what `inner` still brings.
#[derive(Debug)]
pub struct Rewind<T> {
    head: Bytes,
    inner: T,
}

impl<T> Rewind<T> {
    /// `inner`, from which `head` was read.
    pub fn new(head: Bytes, inner: T) -> Self {
        Self { head, inner }
    }

    /// What was read and not given back yet, and the connection.
    pub fn into_parts(self) -> (Bytes, T) {
        (self.head, self.inner)
    }

    /// The connection itself.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Rewind<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let len = self.head.len().min(buf.remaining());
        buf.put_slice(&self.head[..len]);
        self.head.advance(len);
        if self.head.is_empty() {
            // Its memory is not needed any more.
            self.head = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(Rewind<T>, inner);

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_was_read_comes_first() {
        let mut rewound = Rewind::new(Bytes::from_static(b"GET "), &b"/ HTTP/1.1"[..]);
        let mut small = [0; 3];
        rewound.read_exact(&mut small).await.unwrap();
        let mut rest = String::new();
        rewound.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&small[..], rest.as_str()), (&b"GET"[..], " / HTTP/1.1"));
    }
}
