//! The messages of a handover: one line of JSON each, with sockets beside it.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

use crate::accept::Role;

/// Of the messages. Another version is refused, and the predecessor serves on.
pub const VERSION: u32 = 2;
/// The longest message; longer ones come from somebody else.
const LONGEST: usize = 16 * 1024;
/// Sockets that one message may bring; the kernel's limit is 253.
const SOCKETS: usize = 128;

/// A successor's first words.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u32,
    /// Identity and pod: a proxy serves one, and hands over to one of the same.
    pub workload: String,
}

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The sockets beside this message are for these.
    Offer {
        version: u32,
        roles: Vec<Role>,
        ready: bool,
    },
    Refused {
        reason: String,
    },
}

/// A successor's words about itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// It serves.
    Ready,
    /// It ends because it is told to, or has a successor itself: nobody need take its place.
    Ended,
}

/// A connection between the two.
pub struct Line {
    stream: UnixStream,
    read: Vec<u8>,
    sockets: VecDeque<OwnedFd>,
}

impl Line {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, read: Vec::new(), sockets: VecDeque::new() }
    }

    /// Sends a message, and sockets with it.
    pub async fn send(&mut self, message: &impl Serialize, sockets: &[OwnedFd]) -> io::Result<()> {
        let mut text = serde_json::to_vec(message)?;
        text.push(b'\n');
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
        let sent = self.stream.async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets for one message"));
            }
            Ok(sendmsg(&self.stream, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?)
        });
        let sent = sent.await?;
        self.stream.write_all(&text[sent..]).await
    }

    /// The next message, and the sockets that have come with it or before it: the two sides take turns. None: the other end has closed.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let message = serde_json::from_slice(&self.read[..end])?;
                self.read.drain(..=end);
                return Ok(Some((message, self.sockets.drain(..).collect())));
            }
            if self.read.len() > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads what there is. False: there will be nothing more.
    async fn fill(&mut self) -> io::Result<bool> {
        let mut part = [0; 4096];
        let Self { stream, read, sockets } = self;
        let received = stream.async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut part)];
            let received = recvmsg(&*stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    sockets.extend(passed);
                }
            }
            Ok(received.bytes)
        });
        let received = received.await?;
        read.extend_from_slice(&part[..received]);
        Ok(received > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn sockets_come_with_their_message_wherever_it_is_cut() {
        let (near, far) = UnixStream::pair().unwrap();
        let (mut near, mut far) = (Line::new(near), Line::new(far));
        let listeners: Vec<TcpListener> = (0..40).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(|one| one.local_addr().unwrap()).collect();
        let sockets: Vec<OwnedFd> = listeners.into_iter().map(OwnedFd::from).collect();
        let roles = vec![Role::Probes; 700];
        let answer = Answer::Offer { version: VERSION, roles, ready: true };
        near.send(&Word::Ready, &[]).await.unwrap();
        let (word, none) = far.receive::<Word>().await.unwrap().unwrap();
        assert_eq!((word, none.len()), (Word::Ready, 0));
        near.send(&answer, &sockets).await.unwrap();
        let (received, passed) = far.receive::<Answer>().await.unwrap().unwrap();
        assert_eq!(received, answer);
        let passed: Vec<_> = passed.into_iter().map(|one| TcpListener::from(one).local_addr().unwrap()).collect();
        assert_eq!(passed, addresses);
        drop(near);
        assert!(far.receive::<Word>().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut far = Line::new(far);
        assert!(far.receive::<Hello>().await.is_err());
        let (mut near, far) = UnixStream::pair().unwrap();
        let sending = tokio::spawn(async move { near.write_all(&[b'x'; 1 << 20]).await });
        assert_eq!(Line::new(far).receive::<Hello>().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(sending.await.unwrap().is_err());
    }
}
