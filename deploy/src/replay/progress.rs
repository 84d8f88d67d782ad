//! How far long work is, on stderr if somebody is looking.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use fsm_store::Seq;

/// Work that takes less than this shows nothing.
const PATIENCE: Duration = Duration::from_millis(400);
const REFRESH: Duration = Duration::from_millis(100);
const WIDTH: u64 = 30;

/// A bar that is wiped away when the work is done.
pub(super) struct Progress {
    /// Where the work began.
    after: u64,
    /// Where it ends, if that is known.
    total: Option<u64>,
    begun: Instant,
    shown: Option<Instant>,
    on: bool,
}

impl Progress {
    /// Of work on the records after one, up to another one; [`u64::MAX`] if that isn't known.
    pub(super) fn new(after: Seq, upto: Seq) -> Self {
        let total = (upto > after && upto.0 < u64::MAX).then_some(upto.0);
        Self { after: after.0, total, begun: Instant::now(), shown: None, on: io::stderr().is_terminal() }
    }

    /// The work has come to this record.
    pub(super) fn at(&mut self, seq: Seq) {
        let now = Instant::now();
        let due = self.shown.map_or(self.begun + PATIENCE, |shown| shown + REFRESH);
        if !self.on || now < due {
            return;
        }
        self.shown = Some(now);
        let rate = seq.0.saturating_sub(self.after) as f64 / now.duration_since(self.begun).as_secs_f64().max(0.001);
        // A bar that can't be drawn is no reason to stop.
        drop(write!(io::stderr(), "\r\x1b[K{}", line(self.after, seq.0, self.total, rate)));
        drop(io::stderr().flush());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            drop(write!(io::stderr(), "\r\x1b[K"));
            drop(io::stderr().flush());
        }
    }
}

fn line(after: u64, at: u64, total: Option<u64>, rate: f64) -> String {
    let Some(total) = total else { return format!("record {at}, {rate:.0} records/s") };
    let done = (at.saturating_sub(after) * WIDTH / (total - after).max(1)).min(WIDTH);
    let bar: String = (0..WIDTH).map(|place| if place < done { '█' } else { '░' }).collect();
    format!("{bar} record {at} of {total}, {rate:.0} records/s")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_bar_grows_with_the_work() {
        assert_eq!(line(0, 0, Some(300), 10.0), format!("{} record 0 of 300, 10 records/s", "░".repeat(30)));
        assert_eq!(
            line(0, 200, Some(300), 10.0),
            format!("{}{} record 200 of 300, 10 records/s", "█".repeat(20), "░".repeat(10))
        );
        assert_eq!(line(0, 7, None, 2.0), "record 7, 2 records/s");
    }
}
