//! A TCP connection joined to a tunnel: bytes go from the socket into frames and back without being copied on the way,
//! many frames in one system call, and an idle connection has no buffers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::Poll;

use bytes::{Buf, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::idle::Activity;
use super::send::send_data;
use super::splice::{Abort as _, Until, ended_by};
use super::tunnel::{Tunnel, io_error};

/// What one read may take: little at first, more while there is more.
const LEAST: usize = 4 * 1024;
const MOST: usize = 64 * 1024;
/// Frames that one write may take.
const FRAMES: usize = 16;

/// A TCP connection, and what was read from it and from the tunnel already.
pub struct Begun {
    pub stream: TcpStream,
    pub head: Bytes,
    pub heard: Bytes,
}

/// Carries bytes both ways until both directions have ended. Each direction ends by itself (half-close); when one
/// breaks, or `until` ends it, both are reset.
pub async fn carry(begun: Begun, mut tunnel: Tunnel, until: Until) -> io::Result<()> {
    let Begun { mut stream, head, heard } = begun;
    let activity = Activity::new(until.passed.clone());
    let ended = {
        let (read, write) = stream.split();
        let (send, receive, unread) = tunnel.halves();
        let out = out(read, head, send, &activity);
        let back = async {
            let mut write = write;
            write.write_all(&heard).await?;
            activity.written(heard.len());
            back(write, unread, receive, &activity).await
        };
        let both = async { tokio::try_join!(out, back) };
        tokio::select! {
            ended = both => ended.map(drop),
            reason = ended_by(&until, &activity) => Err(reason),
        }
    };
    if ended.is_err() {
        stream.abort();
        tunnel.abort();
    }
    ended
}

/// From the socket into the tunnel.
async fn out(mut from: ReadHalf<'_>, head: Bytes, to: &mut SendStream<Bytes>, activity: &Activity) -> io::Result<()> {
    let mut size = LEAST;
    if !head.is_empty() {
        activity.read(head.len());
        send_data(head, false, to).await.map_err(io_error)?;
    }
    loop {
        // Without a buffer while there is nothing to read.
        from.readable().await?;
        let mut data = BytesMut::with_capacity(size);
        let read = from.read_buf(&mut data).await?;
        if read == 0 {
            return to.send_data(Bytes::new(), true).map_err(io_error);
        }
        activity.read(read);
        size = if read == size { (size * 2).min(MOST) } else { read.next_power_of_two().clamp(LEAST, MOST) };
        send_data(data.freeze(), false, to).await.map_err(io_error)?;
    }
}

/// From the tunnel into the socket.
async fn back(mut to: WriteHalf<'_>, unread: Bytes, from: &mut RecvStream, activity: &Activity) -> io::Result<()> {
    let mut frames = Frames::default();
    frames.push(unread);
    loop {
        let received = frames.remaining();
        to.write_all_buf(&mut frames).await?;
        if received > 0 {
            activity.written(received);
            from.flow_control().release_capacity(received).map_err(io_error)?;
        }
        if !frames.fill(from).await.map_err(io_error)? {
            return to.shutdown().await;
        }
    }
}

/// Frames that are there to be written.
#[derive(Default)]
struct Frames(VecDeque<Bytes>);

impl Frames {
    fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.0.push_back(data);
        }
    }

    /// Waits for a frame, and takes what has come besides. False: there is none any more.
    async fn fill(&mut self, from: &mut RecvStream) -> Result<bool, h2::Error> {
        poll_fn(|cx| {
            loop {
                match from.poll_data(cx) {
                    Poll::Ready(Some(data)) => self.push(data?),
                    Poll::Ready(None) => return Poll::Ready(Ok(!self.0.is_empty())),
                    Poll::Pending if self.0.is_empty() => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Ok(true)),
                }
                if self.0.len() == FRAMES {
                    return Poll::Ready(Ok(true));
                }
            }
        })
        .await
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |data| data)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.0).map(|(slice, data)| *slice = IoSlice::new(data));
        filled.count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(data) = self.0.front_mut().filter(|_| count > 0) {
            let len = data.len().min(count);
            data.advance(len);
            count -= len;
            if data.is_empty() {
                self.0.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_together_and_in_order() {
        let mut frames = Frames::default();
        for text in ["", "ab", "cde", "f"] {
            frames.push(Bytes::from_static(text.as_bytes()));
        }
        assert_eq!(frames.remaining(), 6);
        let mut slices = [IoSlice::new(&[]); 2];
        assert_eq!(frames.chunks_vectored(&mut slices), 2);
        assert_eq!((&*slices[0], &*slices[1]), (&b"ab"[..], &b"cde"[..]));
        frames.advance(3);
        assert_eq!(frames.chunk(), b"de");
        assert_eq!(frames.copy_to_bytes(3), "def");
        assert!(!frames.has_remaining());
    }
}
