//! The access log's way out: a thread of its own writes it, so that a reader who does not read holds up no request.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fsm_proxy_config::LogFormat;

use super::entry::Entry;
use crate::metrics::Counter;

/// Lines that may wait; more are lost, and counted.
const WAITING: usize = 4096;
/// Lines that are there are written together, up to about this many bytes.
const TOGETHER: usize = 64 * 1024;
/// At the end, how often to look whether there is room in the queue.
const ROOM_EVERY: Duration = Duration::from_millis(10);

/// Where the lines go. The default is the standard output.
#[derive(Clone)]
pub struct Output(Arc<Write>);

type Write = dyn Fn(&[u8]) -> io::Result<()> + Send + Sync;

impl Output {
    /// `write` is given whole lines, by one thread.
    pub fn to(write: impl Fn(&[u8]) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::to(|lines| {
            let mut out = io::stdout().lock();
            out.write_all(lines)?;
            out.flush()
        })
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output")
    }
}

/// What became of lines.
#[derive(Debug, Default)]
pub struct Lines {
    pub written: Counter,
    pub lost: Counter,
}

/// Takes entries, and has them written.
pub struct Writer {
    output: Output,
    lines: Arc<Lines>,
    queue: OnceLock<Option<SyncSender<Order>>>,
}

enum Order {
    Write(Arc<Entry>, LogFormat),
    /// Everything before it is written once this is dropped.
    Tell(SyncSender<()>),
}

impl Writer {
    /// The thread begins with the first line.
    pub fn new(output: Output, lines: Arc<Lines>) -> Self {
        Self { output, lines, queue: OnceLock::new() }
    }

    /// Never waits.
    pub fn write(&self, entry: Arc<Entry>, format: LogFormat) {
        let queue = self.queue.get_or_init(|| self.begin());
        let taken = queue.as_ref().is_some_and(|queue| queue.try_send(Order::Write(entry, format)).is_ok());
        if !taken {
            self.lines.lost.add(1);
        }
    }

    /// Waits until everything so far is written, at most `limit`.
    pub fn finish(&self, limit: Duration) {
        if let Some(Some(queue)) = self.queue.get() {
            let (tell, told) = sync_channel(0);
            let (end, mut order) = (Instant::now() + limit, Order::Tell(tell));
            // There is no room while the reader does not read.
            while let Err(TrySendError::Full(again)) = queue.try_send(order) {
                if Instant::now() >= end {
                    return;
                }
                order = again;
                std::thread::sleep(ROOM_EVERY);
            }
            // An error is what is waited for: the other end is dropped.
            let _ = told.recv_timeout(end.saturating_duration_since(Instant::now()));
        }
    }

    fn begin(&self) -> Option<SyncSender<Order>> {
        let (queue, orders) = sync_channel(WAITING);
        let (output, lines) = (self.output.clone(), Arc::clone(&self.lines));
        let thread = std::thread::Builder::new().name("fsm-access-log".into());
        match thread.spawn(move || run(&orders, &output, &lines)) {
            Ok(_) => Some(queue),
            Err(error) => {
                tracing::error!(%error, "there is no access log: its thread could not be started");
                None
            }
        }
    }
}

fn run(orders: &Receiver<Order>, output: &Output, lines: &Lines) {
    let mut text = Vec::new();
    while let Ok(order) = orders.recv() {
        let (mut next, mut count, mut tell) = (Some(order), 0, None);
        while let Some(order) = next {
            match order {
                Order::Write(entry, format) => {
                    entry.line(format, &mut text);
                    count += 1;
                }
                Order::Tell(waiting) => {
                    tell = Some(waiting);
                    break;
                }
            }
            next = if text.len() < TOGETHER { orders.try_recv().ok() } else { None };
        }
        match (output.0)(&text) {
            Ok(()) => lines.written.add(count),
            // Standard output is closed or full. Saying so for each line would not help.
            Err(_) => lines.lost.add(count),
        }
        text.clear();
        drop(tell);
    }
}
