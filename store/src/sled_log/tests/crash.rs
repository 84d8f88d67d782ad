//! Processes that end while they append: a test runs itself once more as that process, and finds its part in its environment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::*;

const CHILD_DIR: &str = "FSM_STORE_CHILD_DIR";

/// The directory of the log to append to, if this process is the one that appends.
fn appends_in() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Runs a test once more as the process that appends; `limit` is the largest file it may write, in units of 512 bytes.
fn child(test: &str, dir: &Path, limit: Option<u64>) -> Child {
    let exe = std::env::current_exe().unwrap();
    let arguments = [format!("sled_log::tests::crash::{test}"), "--exact".into(), "--nocapture".into()];
    let mut command = match limit {
        None => Command::new(exe),
        Some(limit) => {
            // With the signal ignored, a write beyond the limit is an error, as on a full disk.
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"")).arg(exe);
            command
        }
    };
    command.args(arguments).env(CHILD_DIR, dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// "WORD number seq" lines of a child, as they come.
fn lines(child: &mut Child) -> impl Iterator<Item = (String, u64, u64)> + use<> {
    let out = BufReader::new(child.stdout.take().unwrap());
    out.lines().map_while(Result::ok).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    })
}

async fn appends_for_ever(dir: &Path) -> ! {
    let log = open(dir);
    let start = log.last().0;
    println!("\nstart 0 {start}");
    let append = |number: u64| {
        let answer = log.append(numbered([number]));
        async move { (number, answer.await) }
    };
    let mut next = start * 1_000;
    let mut waiting = FuturesUnordered::new();
    loop {
        while waiting.len() < 5 {
            waiting.push(append(next));
            next += 1;
        }
        let (number, answer) = waiting.next().await.unwrap();
        println!("acknowledged {number} {}", answer.unwrap());
    }
}

#[tokio::test]
async fn no_acknowledged_record_is_lost_or_doubled_when_the_process_is_killed() {
    if let Some(dir) = appends_in() {
        appends_for_ever(&dir).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..30_usize {
        let mut process =
            child("no_acknowledged_record_is_lost_or_doubled_when_the_process_is_killed", dir.path(), None);
        let mut said = lines(&mut process);
        // Kills at varied moments: while it opens, and after a few or many commits.
        let before_kill = (round * round * 7) % 97;
        acknowledged.extend(
            said.by_ref().take(before_kill).filter(|line| line.0 == "acknowledged").map(|line| (line.1, line.2)),
        );
        process.kill().unwrap();
        // What it said before it died counts too.
        acknowledged.extend(said.filter(|line| line.0 == "acknowledged").map(|line| (line.1, line.2)));
        process.wait().unwrap();

        let log = open(dir.path());
        let records = all(log.read(START)).await.unwrap();
        assert_eq!(seqs(&records), (1..=log.last().0).collect::<Vec<_>>(), "round {round}");
        let stored: BTreeMap<u64, u64> = records.iter().map(|record| (number(record), record.seq.0)).collect();
        assert_eq!(stored.len(), records.len(), "round {round}: something appears twice");
        for (number, seq) in &acknowledged {
            assert_eq!(stored.get(number), Some(seq), "round {round}: {number} was acknowledged as {seq}");
        }
        assert_eq!(log.verify(|_| ()).unwrap().damages, [], "round {round}");
    }
    assert!(acknowledged.len() > 100, "the child got {} records acknowledged", acknowledged.len());
}

async fn appends_until_an_error(dir: &Path) -> ! {
    let log = open(dir);
    println!();
    for number in 1_u64.. {
        let noise =
            (0..8_192_u64).map(|place| ((number * 8_192 + place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u8);
        match log.append(vec![entry(noise.collect::<Vec<u8>>()), entry(number.to_string())]).await {
            Ok(seq) => println!("acknowledged {number} {seq}"),
            Err(error) => {
                let named = error.to_string().contains("make sure the disk has room");
                println!("refused {} {}", u64::from(named), log.last());
                break;
            }
        }
    }
    // Once refused, always refused; and what was committed can still be read.
    let again = log.append(numbered([0])).await;
    let readable = all(log.read(START)).await.map_or(0, |records| records.len());
    println!("again {} {readable}", u64::from(matches!(again, Err(Error::Stopped { .. }))));
    // The storage engine's own clean-up has nothing to say here.
    std::process::exit(0);
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_half_applies_nothing() {
    if let Some(dir) = appends_in() {
        appends_until_an_error(&dir).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut process = child("a_full_disk_is_a_clear_error_and_half_applies_nothing", dir.path(), Some(8_192));
    let said: Vec<_> = lines(&mut process).collect();
    process.wait().unwrap();
    let acknowledged = said.iter().filter(|line| line.0 == "acknowledged").map(|line| line.2).max().unwrap();
    let [.., refused, again] = &said[..] else { panic!("{said:?}") };
    assert_eq!((refused.0.as_str(), refused.1, refused.2), ("refused", 1, acknowledged));
    assert_eq!((again.0.as_str(), again.1, again.2), ("again", 1, acknowledged));

    let log = open(dir.path());
    let records = all(log.read(START)).await.unwrap();
    assert!(records.len() as u64 >= acknowledged);
    assert_eq!(records.len() % 2, 0, "the two entries of an append are both there or both not");
    assert_eq!(log.verify(|_| ()).unwrap().damages, []);
    assert!(log.append(numbered([0])).await.is_ok(), "with room again, the log goes on");
}
