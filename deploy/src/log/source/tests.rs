use std::fs;

use fsm_store::{Entry, TraceContext};

use super::*;
use crate::log::json_line;

fn record(seq: u64, time_us: u64) -> Record {
    let entry = Entry {
        topic: "object".into(),
        key: "v1/Pod default/web-0".into(),
        body: br#"{"type":"applied"}"#[..].into(),
        trace: TraceContext::default(),
    };
    Record { seq: Seq(seq), time: Timestamp(time_us), entry }
}

/// An exported file with these records.
fn exported(records: &[Record]) -> (tempfile::TempDir, History) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.ndjson");
    let lines: String = records.iter().map(|record| json_line(record).unwrap() + "\n").collect();
    fs::write(&path, lines).unwrap();
    (dir, History::open(path).unwrap())
}

async fn seqs(mut records: Batches) -> anyhow::Result<Vec<u64>> {
    let mut seqs = Vec::new();
    while let Some(batch) = records.try_next().await? {
        seqs.extend(batch.iter().map(|record| record.seq.0));
    }
    Ok(seqs)
}

#[tokio::test]
async fn an_exported_file_is_read_like_a_log() {
    let records: Vec<Record> = (1..=600).map(|seq| record(seq, seq * 1_000_000)).collect();
    let (_dir, history) = exported(&records);
    assert_eq!(seqs(history.records(Seq::ZERO, false)).await.unwrap(), (1..=600).collect::<Vec<_>>());
    assert_eq!(seqs(history.records(Seq(599), false)).await.unwrap(), [599, 600]);
    assert_eq!(history.last().await.unwrap().unwrap().seq, Seq(600));
}

#[tokio::test]
async fn moments_are_found_in_an_exported_file() {
    let records: Vec<Record> = (1..=600).map(|seq| record(seq, seq * 1_000_000)).collect();
    let (_dir, history) = exported(&records);
    for (moment, seq) in [
        (Moment::Seq(Seq(7)), 7),
        (Moment::Time(Timestamp(999_999)), 0),
        (Moment::Time(Timestamp(5_999_999)), 5),
        (Moment::Time(Timestamp(600_000_000)), 600),
        (Moment::Ago { micros: 60_000_000 }, 540),
    ] {
        assert_eq!(history.resolve(moment).await.unwrap(), Seq(seq), "{moment:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_out_of_order_is_refused_with_the_line() {
    let (_dir, history) = exported(&[record(1, 0), record(3, 0), record(2, 0)]);
    let error = seqs(history.records(Seq::ZERO, false)).await.unwrap_err();
    assert!(error.to_string().starts_with("line 3 of "), "{error:#}");
}

#[tokio::test]
async fn a_controller_that_is_not_there_is_named_with_the_remedy() {
    // Port 1 of the loopback interface: nobody listens there.
    let history = History::Controller(Controller::new("http://127.0.0.1:1").unwrap());
    let error = seqs(history.records(Seq::ZERO, false)).await.unwrap_err();
    assert!(error.to_string().contains("--controller"), "{error:#}");
}

#[test]
fn only_plain_http_addresses_are_taken() {
    for url in ["https://127.0.0.1:9092", "127.0.0.1:9092", "unix:/run/fsm"] {
        assert!(Controller::new(url).is_err(), "{url}");
    }
    assert!(Controller::new("http://localhost").is_ok());
}
