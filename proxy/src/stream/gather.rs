//! One connection that many tasks write on: what they have to say leaves together, in few TLS records and system calls.
//!
//! HTTP/2 flushes after each frame with data. Here a flush only notes that there is something to send. It is sent when
//! every task that is ready has had its turn, so under load one system call carries what many requests have
//! to say, and an idle proxy sends at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::spare;

/// A connection that gathers what is written on it until its [`Turns`] send it.
pub struct Gather<T>(Arc<Mutex<Gathered<T>>>);

struct Gathered<T> {
    io: T,
    unsent: Unsent,
    /// Sending failed; said at the next write.
    broken: Option<io::Error>,
}

/// What was written and not sent: a buffer while there is something in it.
#[derive(Default)]
struct Unsent {
    buffer: Option<Box<[u8]>>,
    from: usize,
    to: usize,
}

impl Unsent {
    fn is_empty(&self) -> bool {
        self.buffer.is_none()
    }

    fn is_full(&self) -> bool {
        self.to == spare::LEN
    }

    /// Takes what there is room for.
    fn add(&mut self, data: &[u8]) -> usize {
        let buffer = self.buffer.get_or_insert_with(spare::take);
        let len = data.len().min(spare::LEN - self.to);
        buffer[self.to..self.to + len].copy_from_slice(&data[..len]);
        self.to += len;
        len
    }

    fn sent(&mut self, len: usize) {
        self.from += len;
        if self.from == self.to {
            self.clear();
        }
    }

    fn clear(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            spare::give_back(buffer);
        }
        (self.from, self.to) = (0, 0);
    }

    fn get(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.from..self.to])
    }
}

/// Gives the task of a connection its turns, and sends what was gathered.
pub struct Turns<T> {
    gathered: Arc<Mutex<Gathered<T>>>,
    gate: Arc<Gate>,
    waker: Waker,
    /// Others had their turn since something was gathered.
    due: bool,
}

/// Keeps the task asleep while it waits for the others' turn, however often it is woken meanwhile: it looks at
/// everything when its turn comes.
struct Gate {
    task: AtomicWaker,
    closed: AtomicBool,
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.closed.load(Ordering::Acquire) {
            self.task.wake();
        }
    }
}

/// Splits `io` into the connection and what sends on it.
pub fn gather<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> (Gather<T>, Turns<T>) {
    let gathered = Arc::new(Mutex::new(Gathered { io, unsent: Unsent::default(), broken: None }));
    let gate = Arc::new(Gate { task: AtomicWaker::new(), closed: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&gate));
    (Gather(Arc::clone(&gathered)), Turns { gathered, gate, waker, due: false })
}

impl<T: AsyncRead + AsyncWrite + Unpin> Turns<T> {
    /// Gives what `poll` gives, which drives the connection, and meanwhile sends what it writes. Nothing is lost if the
    /// wait is given up and begun again.
    pub async fn next<R>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<R>) -> R {
        loop {
            self.gate.closed.store(false, Ordering::Release);
            let polled = poll_fn(|cx| {
                self.gate.task.register(cx.waker());
                let mut cx = Context::from_waker(&self.waker);
                if let Poll::Ready(ready) = poll(&mut cx) {
                    return Poll::Ready(Some(ready));
                }
                let mut gathered = lock(&self.gathered);
                if gathered.unsent.is_empty() {
                    return Poll::Pending;
                }
                if !self.due {
                    return Poll::Ready(None);
                }
                match gathered.poll_send(&mut cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(sent) => {
                        self.due = false;
                        let Err(error) = sent else { return Poll::Pending };
                        // Said to the connection at its next turn.
                        gathered.unsent.clear();
                        gathered.broken = Some(error);
                        Poll::Ready(None)
                    }
                }
            });
            if let Some(ready) = polled.await {
                return ready;
            }
            self.gate.closed.store(true, Ordering::Release);
            tokio::task::yield_now().await;
            self.due = true;
        }
    }
}

fn lock<T>(gathered: &Mutex<Gathered<T>>) -> MutexGuard<'_, Gathered<T>> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Gathered<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, self.unsent.get()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.unsent.sent(sent),
            }
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Room for more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.broken.take() {
            self.unsent.clear();
            return Poll::Ready(Err(error));
        }
        if self.unsent.is_full() { self.poll_send(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_room(cx))?;
        Poll::Ready(Ok(if buf.is_empty() { 0 } else { gathered.unsent.add(buf) }))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_room(cx))?;
        let mut taken = 0;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            let added = gathered.unsent.add(buf);
            taken += added;
            if added < buf.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is written is sent by [`Turns`].
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match lock(&self.0).broken.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = lock(&self.0);
        ready!(gathered.poll_send(cx))?;
        Pin::new(&mut gathered.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::sync::mpsc;

    use super::*;

    /// Counts what would be system calls.
    struct Counted {
        io: DuplexStream,
        writes: Arc<AtomicUsize>,
    }

    impl AsyncRead for Counted {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.io).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.io).poll_shutdown(cx)
        }
    }

    /// Writes each message and flushes after it, as HTTP/2 does, until there are no senders any more.
    async fn write_all<T: AsyncRead + AsyncWrite + Unpin>(io: T, mut messages: mpsc::UnboundedReceiver<Vec<u8>>) {
        let (mut connection, mut turns) = gather(io);
        let mut writing: Vec<u8> = Vec::new();
        turns
            .next(|cx| {
                loop {
                    while !writing.is_empty() {
                        let written = ready!(Pin::new(&mut connection).poll_write(cx, &writing)).unwrap();
                        writing.drain(..written);
                    }
                    ready!(Pin::new(&mut connection).poll_flush(cx)).unwrap();
                    match ready!(messages.poll_recv(cx)) {
                        Some(message) => writing = message,
                        None => return Poll::Ready(()),
                    }
                }
            })
            .await;
        connection.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn what_many_tasks_write_leaves_together() {
        let (near, mut far) = tokio::io::duplex(1024);
        let writes = Arc::new(AtomicUsize::new(0));
        let (send, messages) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write_all(Counted { io: near, writes: Arc::clone(&writes) }, messages));
        for _ in 0..10 {
            let send = send.clone();
            tokio::spawn(async move { send.send(b"0123456789".to_vec()).unwrap() });
        }
        let mut received = vec![0; 100];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(received, b"0123456789".repeat(10));
        assert_eq!(writes.load(Ordering::Relaxed), 1);
        drop(send);
        writer.await.unwrap();
        assert_eq!(far.read(&mut received).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn more_than_fits_arrives_whole_and_in_order() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (send, messages) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write_all(near, messages));
        let text: Vec<u8> = (0..400_000_u32).flat_map(u32::to_be_bytes).collect();
        for part in text.chunks(7777) {
            send.send(part.to_vec()).unwrap();
        }
        drop(send);
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert!(received == text);
        writer.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_breaks_says_so() {
        let (near, far) = tokio::io::duplex(10);
        drop(far);
        let (mut connection, mut turns) = gather(near);
        let mut written = false;
        let ended = turns
            .next(|cx| {
                if !written {
                    written = true;
                    let _ = Pin::new(&mut connection).poll_write(cx, b"lost").map(Result::unwrap);
                }
                match ready!(Pin::new(&mut connection).poll_flush(cx)) {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(error.kind()),
                }
            })
            .await;
        assert_eq!(ended, io::ErrorKind::BrokenPipe);
    }
}
