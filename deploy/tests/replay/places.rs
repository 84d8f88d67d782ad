//! The same history in other places: a log that begins with a snapshot, and a controller that runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fsm_actors::debug::DebugService;
use fsm_actors::serve::{Protocol, bind};
use fsm_actors::{ControlPlane, control_plane, snapshots};
use fsm_store::{Clock, Entry, EventLog, Options, Seq, SledLog, Timestamp, TraceContext};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::{Ended, Recording, replay};

const BUY: &str = "bookstore.bookstore:14001 --path /buy-a-book/new";

#[derive(Deserialize)]
struct Line<'a> {
    time_us: u64,
    topic: String,
    key: String,
    trace_id: Option<String>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// The recording as a log's directory, with snapshots after these records.
async fn write(dir: &Path, snapshots_after: &[u64]) -> SledLog {
    let recording = Recording::bookstore();
    let text = std::fs::read_to_string(recording.path()).unwrap();
    let time = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&time);
    let clock = Clock::new(move || Timestamp(now.load(Ordering::SeqCst)));
    let log = SledLog::open(dir, Options { clock, ..Options::default() }).unwrap();
    for line in text.lines() {
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        time.store(line.time_us, Ordering::SeqCst);
        let trace_id = line.trace_id.map_or(0, |id| u128::from_str_radix(&id, 16).unwrap()).to_be_bytes();
        let trace = TraceContext { trace_id, ..TraceContext::default() };
        let entry =
            Entry { topic: line.topic.into(), key: line.key.into(), body: line.body.get().to_owned().into(), trace };
        let seq = log.append(vec![entry]).await.unwrap();
        if snapshots_after.contains(&seq.0) {
            assert_eq!(snapshots::take(&log).await.unwrap(), seq);
        }
    }
    log
}

/// Commands about moments after record 100.
fn commands() -> Vec<String> {
    vec![
        "state --at 128".into(),
        "state --at 128 trafficsplits -n bookstore -o json".into(),
        "config --at 131 --proxy bookbuyer".into(),
        "config --at 131 --proxy bookbuyer -o json".into(),
        format!("request --from bookbuyer --to {BUY} --at 132"),
        format!("request --from bookbuyer --to {BUY} --at 136 -o json"),
        "diff --from 126 --to 134".into(),
        "diff --from 134 --to 139 -o json".into(),
        format!("bisect --from 134 --to 139 --expect allowed --client bookbuyer --server {BUY}"),
        "run --without 135 136 --to 139 -o json".into(),
    ]
}

#[tokio::test]
async fn what_cannot_concern_an_answer_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    drop(write(dir.path(), &[100, 128, 137, 150, 160]).await);
    let place = dir.path().display().to_string();
    for words in [
        "--from 134 --to 139 --expect allowed",
        "--from 136 --to 169 --expect denied",
        "--from 126 --to 134 --expect backend=bookstore-v2",
        "--from 126 --to 169 --expect allowed",
        "--from 145 --to 169 --expect denied",
        "--from 60 --expect denied",
    ] {
        let search = |how: &str| {
            let words = format!("bisect {words} --client bookbuyer --server {BUY} -o json {how}");
            serde_json::from_str::<Value>(&replay(["--data-dir", &place], &words).out).unwrap()
        };
        let (some, all) = (search("--first"), search("--thorough"));
        for part in ["from", "to", "holds_at_from", "found", "first", "records"] {
            assert_eq!(some[part], all[part], "{words}: {part}");
        }
        assert_eq!(all["concerned"], Value::Null, "{words}");
        assert!(some["concerned"].as_u64() <= some["records"].as_u64(), "{words}: {some}");
    }
    let words = format!("bisect --from 145 --to 169 --expect denied --client bookbuyer --server {BUY}");
    let err = replay(["--data-dir", &place], &words).err;
    assert!(err.contains("can concern the answer (--thorough applies all)"), "{err}");
}

fn same_everywhere(place: [&str; 2]) {
    let whole = Recording::bookstore();
    for words in commands() {
        let Ended { code, out, err } = replay(place, &words);
        assert_eq!((code, err.as_str()), (0, ""), "{words}");
        assert_eq!(out, whole.prints(&words), "{words}");
    }
}

#[tokio::test]
async fn a_log_that_begins_with_a_snapshot_gives_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let log = write(dir.path(), &[100]).await;
    let place = dir.path().display().to_string();
    drop(log);
    same_everywhere(["--data-dir", &place]);

    let log = SledLog::open(dir.path(), Options::default()).unwrap();
    assert_eq!(log.compact(Seq(120)).await.unwrap(), Seq(101));
    drop(log);
    same_everywhere(["--data-dir", &place]);

    let verified = replay(["--data-dir", &place], "run --verify").out;
    assert!(
        verified.starts_with("begun with the snapshot of seq 100\n") && verified.ends_with("identical\n"),
        "{verified}"
    );

    // What only dropped records said is not known any more, and that is said.
    let words = "why --proxy bookbuyer --resource bookstore-v1-kkrlj --at 145";
    let origins = |out: &str| -> Vec<(String, u64, Option<u64>)> {
        let origins: serde_json::Value = serde_json::from_str(out).unwrap();
        let inputs = origins["inputs"].as_array().unwrap().iter();
        inputs
            .map(|input| {
                let object = format!("{} {}", input["role"], input["object"].as_str().unwrap());
                (object, input["seen"].as_u64().unwrap(), input["record"]["seq"].as_u64())
            })
            .collect()
    };
    let (here, whole) = (replay(["--data-dir", &place], &format!("{words} -o json")), Recording::bookstore());
    let (mut here, mut whole) = (origins(&here.out), origins(&whole.prints(&format!("{words} -o json"))));
    here.sort();
    whole.sort();
    let dropped = here.iter().filter(|origin| origin.2.is_none()).count();
    assert!(dropped > 0 && dropped < here.len(), "{here:?}");
    for (here, whole) in here.iter().zip(&whole) {
        assert_eq!((&here.0, here.1), (&whole.0, whole.1));
        assert!(here.2 == whole.2 || (here.2.is_none() && whole.2 <= Some(100)), "{here:?} {whole:?}");
    }
    assert_eq!(here.len(), whole.len());
    assert!(replay(["--data-dir", &place], words).out.contains("dropped with old history"));

    let before = replay(["--data-dir", &place], &format!("request --from bookbuyer --to {BUY} --at 99"));
    assert_eq!(before.code, 1);
    assert!(before.err.contains("ask for a later moment"), "{}", before.err);
}

#[tokio::test]
async fn a_search_jumps_from_snapshot_to_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    drop(write(dir.path(), &[40, 80, 100, 110, 120, 130, 135, 137, 138]).await);
    let place = dir.path().display().to_string();
    let search = |words: &str| -> (u64, bool, u64) {
        let words = format!("bisect {words} --client bookbuyer --server {BUY} -o json");
        let ended = replay(["--data-dir", &place], &words);
        let outcome: serde_json::Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{}", ended.err));
        let seq = outcome["found"]["record"]["seq"].as_u64().unwrap();
        (seq, outcome["first"].as_bool().unwrap(), outcome["records"].as_u64().unwrap())
    };
    assert_eq!(search("--from 126 --to 139 --expect allowed"), (136, false, 1));
    assert_eq!(search("--from 126 --to 139 --expect allowed --first"), (136, true, 10));
    // The answer is the same at both ends: every record is looked at.
    assert_eq!(search("--from 126 --to 169 --expect allowed"), (136, true, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_controller_gives_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(write(dir.path(), &[100]).await);
    let plane = ControlPlane::start(log.clone(), control_plane::Options::default()).await.unwrap();
    let service = DebugService::new(log.clone(), Arc::new(plane));
    let bound = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "debugging", "--debug-port").await.unwrap();
    let url = format!("http://{}", bound.local_addr().unwrap());
    let stop = CancellationToken::new();
    let server = tokio::spawn(bound.serve(Protocol::Plain, service, stop.clone()));

    let asked = url.clone();
    tokio::task::spawn_blocking(move || same_everywhere(["--controller", &asked])).await.unwrap();
    let verify = |url: String| tokio::task::spawn_blocking(move || replay(["--controller", &url], "run --verify"));
    let verified = verify(url.clone()).await.unwrap();
    assert!(verified.out.ends_with("identical\n"), "{}{}", verified.out, verified.err);

    // The same after the beginning of its log is dropped.
    assert_eq!(log.compact(Seq(120)).await.unwrap(), Seq(101));
    let asked = url.clone();
    tokio::task::spawn_blocking(move || same_everywhere(["--controller", &asked])).await.unwrap();
    let Ended { code, out, err } = verify(url).await.unwrap();
    assert!(code == 0 && out.starts_with("begun with the snapshot of seq 100\n"), "{out}{err}");
    assert!(out.ends_with("identical\n"), "{out}{err}");
    stop.cancel();
    server.await.unwrap();
}
