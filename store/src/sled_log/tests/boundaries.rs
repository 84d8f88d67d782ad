//! A fault at every single write: the process is stopped at each system call that changes a file, below the storage engine, and
//! killed there, or killed after half of the write, or from there on the disk is full.
//!
//! `cargo test` tries some points. All of them:
//! `FSM_KILL_POINTS=1000 cargo test --release -p fsm-store boundaries -- --nocapture`

mod tracer;

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use self::tracer::{Event, Fault, Traced};
use super::*;
use crate::Durability;

const CHILD_DIR: &str = "FSM_STORE_BOUNDARIES_DIR";
/// In the log's directory: the child is to survive power cuts.
const POWER: &str = "power";
const CHILD: &str = "sled_log::tests::boundaries::works_under_supervision";
/// How many faults are tried if nothing else is asked for.
const POINTS: usize = 30;

/// The child process: begins or opens a log, and does to it all that a controller does. It says what was acknowledged.
#[tokio::test]
async fn works_under_supervision() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    println!("\nready");
    // Whoever supervises this process lets it go on.
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    let power = Path::new(&dir).join(POWER).exists();
    let durability = if power { Durability::Power } else { Durability::Process };
    let log = match SledLog::open(Path::new(&dir).join("log"), Options { durability, ..Options::default() }) {
        Ok(log) => log,
        Err(error) => return println!("refused {error}"),
    };
    let start = log.last().0 * 1_000;
    let noise = |number: u64, length: u64| -> Vec<u8> {
        (0..length).map(|place| ((number + place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u8).collect()
    };
    for number in start..start + 40 {
        let mut entries = numbered([number]);
        if number % 10 == 3 {
            // Too large to lie in the engine's own file.
            entries.insert(0, entry(noise(number, 200_000)));
        }
        match log.append(entries).await {
            Ok(seq) => println!("acknowledged {number} {seq}"),
            Err(error) => return println!("refused {error}"),
        }
        if number % 10 == 5 {
            match log.snapshot("state", log.last(), noise(number, 3_000)).await {
                Ok(()) => println!("snapshot {number} {}", log.last()),
                Err(error) => return println!("refused {error}"),
            }
        }
        if number % 10 == 8
            && let Err(error) = log.compact(log.last()).await
        {
            return println!("refused {error}");
        }
    }
    drop(log);
    println!("finished");
}

/// What a log has to hold.
#[derive(Default)]
struct Promised {
    /// Number to seq.
    acknowledged: BTreeMap<u64, u64>,
    /// The newest snapshot.
    snapshot: u64,
}

impl Promised {
    fn hear(&mut self, said: &str) {
        for line in said.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["acknowledged", number, seq] => {
                    self.acknowledged.insert(number.parse().unwrap(), seq.parse().unwrap());
                }
                ["snapshot", _, seq] => self.snapshot = seq.parse().unwrap(),
                ["refused", rest @ ..] => {
                    let why = rest.join(" ");
                    let named = ["make sure the disk has room", "can't"].iter().any(|part| why.contains(part));
                    assert!(named, "a refusal has to say what was found: {why}");
                }
                _ => {}
            }
        }
    }

    /// Opens the log as the next start would, and compares.
    async fn check(&self, dir: &Path, point: &str) {
        let log = SledLog::open(dir.join("log"), Options::default()).unwrap_or_else(|error| panic!("{point}: {error}"));
        let summary = log.verify(|_| ()).unwrap();
        assert_eq!(summary.damages, [], "{point}");
        let records = all(log.read(START)).await.unwrap_or_else(|error| panic!("{point}: {error}"));
        let first = log.first().0;
        assert_eq!(seqs(&records), (first..=log.last().0).collect::<Vec<_>>(), "{point}");
        let numbers = records.iter().filter_map(|record| {
            Some((std::str::from_utf8(&record.entry.body).ok()?.parse::<u64>().ok()?, record.seq.0))
        });
        let numbers: Vec<(u64, u64)> = numbers.collect();
        let stored: BTreeMap<u64, u64> = numbers.iter().copied().collect();
        assert_eq!(stored.len(), numbers.len(), "{point}: something is there twice");
        for (number, seq) in self.acknowledged.iter().filter(|(_, seq)| **seq >= first) {
            assert_eq!(stored.get(number), Some(seq), "{point}: {number} was acknowledged");
        }
        if self.snapshot > 0 {
            let newest = log.latest_snapshot("state", log.last()).await.unwrap().map(|found| found.seq.0);
            assert!(newest >= Some(self.snapshot), "{point}: the snapshot of seq {} is gone", self.snapshot);
            assert!(first <= self.snapshot + 1, "{point}: records that the snapshot needs are gone");
        }
        log.append(numbered([u64::MAX])).await.unwrap_or_else(|error| panic!("{point}: {error}"));
    }
}

/// Runs the child with a fault; gives what it said and how many writes there were.
fn run(dir: &Path, fault: Option<(Fault, usize)>) -> Option<(String, usize)> {
    let mut traced = Traced::start(CHILD, (CHILD_DIR, dir))?;
    let writes = traced.run(dir, fault);
    let mut said = String::new();
    traced.stdout.read_to_string(&mut said).unwrap();
    Some((said, writes))
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_doubled_at_any_write() {
    let points = std::env::var("FSM_KILL_POINTS").ok().map_or(POINTS, |points| points.parse().unwrap());
    let whole = tempfile::tempdir().unwrap();
    let Some((said_at_first, first_run)) = run(whole.path(), None) else {
        println!("skipped: needs ptrace on x86-64");
        return;
    };
    assert!(said_at_first.contains("finished"), "{said_at_first}");
    let begun_log = tempfile::tempdir().unwrap();
    copy(whole.path(), begun_log.path());
    let (_, second_run) = run(whole.path(), None).unwrap();
    assert!(first_run > 150 && second_run > 150, "{first_run} and {second_run} writes");

    let faults = [Fault::Kill, Fault::Torn, Fault::Full];
    let mut fired = 0;
    for point in 0..points {
        let fault = faults[point % faults.len()];
        // A log that begins, and one that is there already, in turn; then the writes in steps that come past all of them.
        let begun = (point / faults.len()) % 2 == 1;
        let writes = if begun { second_run } else { first_run };
        let place = point / (2 * faults.len());
        let steps = points.div_ceil(2 * faults.len()).max(1);
        let at = if steps >= writes { place % writes } else { place * writes / steps };
        let dir = tempfile::tempdir().unwrap();
        let mut promised = Promised::default();
        if begun {
            copy(begun_log.path(), dir.path());
            promised.hear(&said_at_first);
        }
        let (said, reached) = run(dir.path(), Some((fault, at))).unwrap();
        promised.hear(&said);
        fired += usize::from(reached > at);
        promised
            .check(dir.path(), &format!("{fault:?} at write {at}, log {}", if begun { "begun" } else { "new" }))
            .await;
    }
    println!("{points} faults, {fired} of them at a write: nothing lost, nothing doubled");
    assert!(fired * 10 >= points * 8, "only {fired} of {points} faults happened");
}

/// An acknowledgement that survives a power cut comes after everything that was written for it is on the disk.
#[tokio::test]
async fn with_durability_power_nothing_is_acknowledged_before_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(POWER), "").unwrap();
    for _ in 0..2 {
        let Some(mut traced) = Traced::start(CHILD, (CHILD_DIR, dir.path())) else {
            println!("skipped: needs ptrace on x86-64");
            return;
        };
        traced.run(dir.path(), None);
        let mut said = String::new();
        traced.stdout.read_to_string(&mut said).unwrap();
        assert!(said.contains("finished"), "{said}");
        let (mut unsynced, mut acknowledgements) = (std::collections::BTreeSet::new(), 0);
        for event in &traced.events {
            match event {
                // The engine's own copies of its index: it does without them.
                Event::Changes(file) if file.to_string_lossy().contains("/snap.") || *file == dir.path() => {}
                // Says who uses the log: nobody does after a power cut.
                Event::Changes(file) if file.ends_with("LOCK") => {}
                Event::Changes(file) => drop(unsynced.insert(file)),
                Event::Syncs(file) => drop(unsynced.remove(file)),
                Event::Says => {
                    acknowledgements += 1;
                    assert!(unsynced.is_empty(), "acknowledged before these were synced: {unsynced:?}");
                }
            }
        }
        assert!(acknowledgements > 40, "{acknowledgements}");
    }
}
