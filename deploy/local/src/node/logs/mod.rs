//! Containers' output: one file a run, each line with its time and stream (the CRI log format), and readers that follow it.

mod tail;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{broadcast, watch};

use tail::{Tail, aside, read_all};

/// A run's file is put aside when it has this size; the one put aside before is then lost.
const ROTATE_BYTES: u64 = 10 << 20;
/// Longer lines are cut into pieces of this size.
const LINE_BYTES: usize = 16 << 10;

/// How many chunks of output a live reader may be behind.
const LIVE_CHUNKS: usize = 256;

/// What a reader wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    pub follow: bool,
    pub tail_lines: Option<usize>,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<SignedDuration>,
    pub limit_bytes: Option<usize>,
}

/// Which of a process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The logs of one container, over its runs.
#[derive(Debug)]
pub struct ContainerLog {
    dir: PathBuf,
    progress: watch::Sender<Progress>,
    live: broadcast::Sender<(Stream, Bytes)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Progress {
    run: u32,
    lines: u64,
    /// The run has ended and all its output is written.
    closed: bool,
}

/// Writes the output of one run.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
}

impl ContainerLog {
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, progress: watch::Sender::new(Progress::default()), live: broadcast::Sender::new(LIVE_CHUNKS) }
    }

    fn path(&self, run: u32) -> PathBuf {
        self.dir.join(format!("{run}.log"))
    }

    /// Begins the log of a run. Output is taken until all its streams are closed; the future resolves then.
    pub fn begin(
        self: &Arc<Self>,
        run: u32,
        outputs: Vec<(Stream, OwnedFd)>,
    ) -> io::Result<impl Future<Output = ()> + Send + 'static + use<>> {
        fs::create_dir_all(&self.dir)?;
        if let Some(old) = run.checked_sub(2) {
            // Only the current and the previous run can be asked for.
            for path in [self.path(old), aside(&self.path(old))] {
                fs::remove_file(path).ok();
            }
        }
        let writer = Arc::new(Mutex::new(Writer::open(self.path(run))?));
        let mut copies = Vec::new();
        self.progress.send_replace(Progress { run, lines: 0, closed: false });
        for (stream, end) in outputs {
            copies.push(copy(stream_of(end)?, stream, Arc::clone(self), Arc::clone(&writer)));
        }
        let log = Arc::clone(self);
        Ok(async move {
            futures::future::join_all(copies).await;
            log.progress.send_modify(|p| p.closed = true);
        })
    }

    /// What the container writes from now on, as it writes it. A reader that is too slow misses some.
    pub fn live(&self) -> broadcast::Receiver<(Stream, Bytes)> {
        self.live.subscribe()
    }

    /// The lines asked for, and with `follow` those to come until the run ends.
    pub fn read(&self, want: Want) -> io::Result<BoxStream<'static, Bytes>> {
        let mut progress = self.progress.subscribe();
        let current = *progress.borrow_and_update();
        let run = if want.previous {
            let previous = current.run.checked_sub(1);
            previous
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "previous terminated container not found"))?
        } else {
            current.run
        };
        let path = self.path(run);
        let mut tail = Tail::open(&path)?;
        let mut lines = read_all(&aside(&path))?;
        lines.extend(tail.read()?);
        let since = want.since.and_then(|age| Timestamp::now().checked_sub(age).ok());
        lines.retain(|line| since.is_none_or(|since| line.time >= since));
        if let Some(count) = want.tail_lines {
            lines.drain(..lines.len().saturating_sub(count));
        }
        let shown: Vec<Bytes> = lines.iter().map(|line| line.show(want.timestamps)).collect();
        let first = stream::iter(shown);
        if !want.follow || want.previous {
            return Ok(limit(first.boxed(), want.limit_bytes));
        }
        let rest = stream::unfold((progress, tail), move |(mut progress, mut tail)| async move {
            loop {
                let state = *progress.borrow_and_update();
                let lines = tail.read().unwrap_or_default();
                if !lines.is_empty() {
                    let shown: Vec<Bytes> = lines.iter().map(|line| line.show(want.timestamps)).collect();
                    return Some((stream::iter(shown), (progress, tail)));
                }
                if state.closed || state.run != run || progress.changed().await.is_err() {
                    return None;
                }
            }
        });
        Ok(limit(first.chain(rest.flatten()).boxed(), want.limit_bytes))
    }

    /// The end of what the current run has written: so many lines at most, and so many bytes.
    pub fn end(&self, lines: usize, bytes: usize) -> Vec<u8> {
        let path = self.path(self.progress.borrow().run);
        let mut stored = read_all(&aside(&path)).unwrap_or_default();
        stored.extend(read_all(&path).unwrap_or_default());
        let shown: Vec<Bytes> =
            stored[stored.len().saturating_sub(lines)..].iter().map(|line| line.show(false)).collect();
        let text = shown.concat();
        text[text.len().saturating_sub(bytes)..].to_vec()
    }

    /// Removes the files.
    pub fn remove(&self) {
        fs::remove_dir_all(&self.dir).ok();
        self.progress.send_modify(|p| p.closed = true);
    }
}

async fn copy(mut source: pipe::Receiver, stream: Stream, log: Arc<ContainerLog>, writer: Arc<Mutex<Writer>>) {
    let mut chunk = vec![0; LINE_BYTES];
    let mut open = Vec::new();
    loop {
        // A terminal nobody has open any more is an error to read.
        let read = source.read(&mut chunk).await.unwrap_or(0);
        if read > 0 && log.live.receiver_count() > 0 {
            log.live.send((stream, Bytes::copy_from_slice(&chunk[..read]))).ok();
        }
        open.extend_from_slice(&chunk[..read]);
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        while let Some(end) = piece(&open, read == 0) {
            pieces.push(open.drain(..end).collect());
        }
        if !pieces.is_empty() {
            let written = writer.lock().unwrap_or_else(PoisonError::into_inner).append(stream.name(), &pieces);
            if let Err(error) = written {
                tracing::warn!(%error, "container output is lost");
            }
            log.progress.send_modify(|p| p.lines += pieces.len() as u64);
        }
        if read == 0 {
            return;
        }
    }
}

/// Where the first piece to store ends: after a whole line, in a line that is too long, or at the end of everything.
fn piece(open: &[u8], last: bool) -> Option<usize> {
    let line = open.iter().position(|b| *b == b'\n').map(|at| at + 1);
    let end = line.or((open.len() >= LINE_BYTES || last).then_some(open.len()));
    end.map(|end| end.min(LINE_BYTES)).filter(|end| *end > 0)
}

/// Our end of a pipe or terminal, for reading as it comes.
pub(super) fn stream_of(end: OwnedFd) -> io::Result<pipe::Receiver> {
    nonblocking(&end)?;
    // Unchecked because a terminal is no pipe; it is waited for and read in the same way.
    pipe::Receiver::from_file_unchecked(File::from(end))
}

/// Our end of a pipe or terminal, for writing.
pub(super) fn sink_of(end: OwnedFd) -> io::Result<pipe::Sender> {
    nonblocking(&end)?;
    pipe::Sender::from_file_unchecked(File::from(end))
}

fn nonblocking(end: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(end, FcntlArg::F_GETFL)?);
    fcntl(end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Writer {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    fn append(&mut self, stream: &str, pieces: &[Vec<u8>]) -> io::Result<()> {
        if self.size > ROTATE_BYTES {
            fs::rename(&self.path, aside(&self.path))?;
            *self = Self::open(self.path.clone())?;
        }
        let now = Timestamp::now();
        let mut out = Vec::new();
        for piece in pieces {
            let (text, mark) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, "F"),
                None => (piece.as_slice(), "P"),
            };
            write!(out, "{now:.9} {stream} {mark} ")?;
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        self.file.write_all(&out)?;
        self.size += out.len() as u64;
        Ok(())
    }
}

/// Ends the stream after so many bytes.
fn limit(lines: BoxStream<'static, Bytes>, bytes: Option<usize>) -> BoxStream<'static, Bytes> {
    let Some(bytes) = bytes else { return lines };
    lines
        .scan(bytes, |left, line| {
            let shown = line.slice(..line.len().min(*left));
            *left -= shown.len();
            std::future::ready((!shown.is_empty()).then_some(shown))
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    async fn text(stream: BoxStream<'static, Bytes>) -> String {
        let all: Vec<Bytes> = stream.collect().await;
        String::from_utf8(all.concat()).unwrap()
    }

    fn pipes() -> (Vec<(Stream, OwnedFd)>, [std::io::PipeWriter; 2]) {
        let (out, out_end) = std::io::pipe().unwrap();
        let (err, err_end) = std::io::pipe().unwrap();
        (vec![(Stream::Stdout, out.into()), (Stream::Stderr, err.into())], [out_end, err_end])
    }

    #[tokio::test]
    async fn a_follower_sees_everything_until_the_run_ends() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(ContainerLog::new(dir.path().join("c")));
        let (outputs, [mut out_end, err_end]) = pipes();
        let mut live = log.live();
        let written = tokio::spawn(log.begin(0, outputs).unwrap());
        out_end.write_all(b"one\n").unwrap();
        let followed = log.read(Want { follow: true, ..Want::default() }).unwrap();
        out_end.write_all(b"two\nthree").unwrap();
        drop((out_end, err_end));
        assert_eq!(text(followed).await, "one\ntwo\nthree");
        written.await.unwrap();
        let mut raw = Vec::new();
        while let Ok((_, bytes)) = live.try_recv() {
            raw.extend(bytes);
        }
        assert_eq!(raw, b"one\ntwo\nthree");
        let tail = log.read(Want { tail_lines: Some(2), limit_bytes: Some(6), ..Want::default() }).unwrap();
        assert_eq!(text(tail).await, "two\nth");
        assert_eq!(log.end(2, 100), b"two\nthree");
        assert_eq!(log.end(80, 4), b"hree");
    }

    #[tokio::test]
    async fn the_previous_run_can_be_read_and_older_ones_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(ContainerLog::new(dir.path().join("c")));
        assert!(log.read(Want { previous: true, ..Want::default() }).is_err());
        for run in 0..3 {
            let (outputs, [mut out_end, _]) = pipes();
            writeln!(out_end, "run {run}").unwrap();
            drop(out_end);
            log.begin(run, outputs).unwrap().await;
        }
        assert_eq!(text(log.read(Want { previous: true, ..Want::default() }).unwrap()).await, "run 1\n");
        assert!(!dir.path().join("c/0.log").exists());
        let stamped = text(log.read(Want { timestamps: true, ..Want::default() }).unwrap()).await;
        let (stamp, line) = stamped.split_once(' ').unwrap();
        assert!(stamp.parse::<Timestamp>().is_ok() && line == "run 2\n", "{stamped}");
    }
}
