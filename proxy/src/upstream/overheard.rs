//! Interim responses on an HTTP/1.1 connection, heard as they are read.
//!
//! hyper reads over them, or tells them to a function that has to be given along with every request, at the price of some
//! memory for each. Here nothing is done but for one look at the beginning of each response. What is read is not changed:
//! where a response ends and what it means is hyper's decision alone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::{HeaderName, HeaderValue, Response};
use tokio::io::{AsyncRead, ReadBuf};

use crate::early;
use crate::stream::writes_through;

/// How every interim response begins.
const BEGINNING: &[u8] = b"HTTP/1.1 1";
/// Fields that an interim response may have.
const FIELDS: usize = 64;
/// The longest interim response that is passed on.
const LONGEST: usize = 16 * 1024;

/// Whether a response is awaited, of which nothing but interim ones has come yet.
#[derive(Clone, Debug, Default)]
pub struct Awaiting(Arc<AtomicBool>);

impl Awaiting {
    /// A request is about to be sent.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A connection whose interim responses are offered to whoever waits.
#[derive(Debug)]
pub struct Overheard<T> {
    io: T,
    awaiting: Awaiting,
    /// An interim response that has not come to its end.
    begun: Vec<u8>,
}

impl<T> Overheard<T> {
    pub fn new(io: T, awaiting: Awaiting) -> Self {
        Self { io, awaiting, begun: Vec::new() }
    }

    fn hear(&mut self, read: &[u8]) {
        if self.begun.is_empty() && !may_be_interim(read) {
            return self.awaiting.0.store(false, Ordering::Relaxed);
        }
        self.begun.extend_from_slice(read);
        while may_be_interim(&self.begun) && self.begun.len() <= LONGEST {
            match interim(&self.begun) {
                Heard::Whole(response, length) => {
                    early::offer(response);
                    self.begun.drain(..length);
                    if self.begun.is_empty() {
                        return;
                    }
                }
                Heard::Part => return,
                Heard::Other => break,
            }
        }
        self.begun = Vec::new();
        self.awaiting.0.store(false, Ordering::Relaxed);
    }
}

fn may_be_interim(read: &[u8]) -> bool {
    let length = read.len().min(BEGINNING.len());
    read[..length] == BEGINNING[..length]
}

enum Heard {
    Whole(Response<()>, usize),
    Part,
    /// A final response, or something else.
    Other,
}

fn interim(read: &[u8]) -> Heard {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let length = match head.parse(read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Heard::Part,
        Err(_) => return Heard::Other,
    };
    let Some(status) = head.code.filter(|status| *status != 101) else { return Heard::Other };
    let fields = head.headers.iter().map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    });
    let response = Response::builder().status(status).body(());
    let (Ok(mut response), Some(fields)) = (response, fields.collect::<Option<Vec<_>>>()) else { return Heard::Other };
    for (name, value) in fields {
        response.headers_mut().append(name, value);
    }
    Heard::Whole(response, length)
}

impl<T: AsyncRead + Unpin> AsyncRead for Overheard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.awaiting.0.load(Ordering::Relaxed) {
            self.hear(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(Overheard<T>, io);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// What is heard of `read`, in pieces of `piece` bytes.
    fn heard(read: &[u8], piece: usize) -> Vec<String> {
        let awaiting = Awaiting::default();
        awaiting.begin();
        let mut connection = Overheard::new(read, awaiting);
        let mut all = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut heard = Vec::new();
        runtime.block_on(async {
            let mut reading = pin!(async {
                let mut part = vec![0; piece];
                loop {
                    match connection.read(&mut part).await.unwrap() {
                        0 => break,
                        length => all.extend_from_slice(&part[..length]),
                    }
                }
            });
            let mut passed = 0;
            let mut hear = |one: Response<()>| heard.push(format!("{} {:?}", one.status().as_u16(), one.headers()));
            poll_fn(|cx| early::poll(reading.as_mut(), &mut passed, cx, &mut hear)).await;
        });
        assert_eq!(all, read, "what is read was changed");
        heard
    }

    #[test]
    fn interim_responses_are_heard_wherever_they_are_cut() {
        let read = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nlink: </b>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 in a body\r\n\r\n";
        for piece in [1, 3, 10, 60, 1000] {
            let hints = "103 {\"link\": \"</a>; rel=preload\", \"link\": \"</b>\"}";
            assert_eq!(heard(read, piece), [hints, "102 {}"], "{piece}");
        }
    }

    #[test]
    fn what_is_no_interim_response_is_let_by() {
        let endless = [BEGINNING, &[b'0'; 2 * LONGEST]].concat();
        let many = format!("HTTP/1.1 103 x\r\n{}\r\n", "a: b\r\n".repeat(FIELDS + 1));
        for read in [
            &b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 103 x\r\n\r\n"[..],
            b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 103 x\r\n\r\n",
            b"HTTP/1.0 103 x\r\n\r\n",
            b"HTTP/1.1 1x3 x\r\n\r\nHTTP/1.1 103 x\r\n\r\n",
            &endless,
            many.as_bytes(),
            b"",
        ] {
            assert!(heard(read, 7).is_empty());
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_is_changed(read: Vec<u8>, piece in 1..50_usize, interim: bool) {
            let read = if interim { [b"HTTP/1.1 103 x\r\n", &read[..]].concat() } else { read };
            heard(&read, piece);
        }
    }
}
