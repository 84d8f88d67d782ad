//! A history proves itself, and a history that was changed does not.

use std::sync::Arc;

use fsm_actors::replay::{Difference, verify};
use fsm_replay_tests::{recorded, with_proofs};
use fsm_store::{EventLog, Options, Record, Seq, SledLog};
use futures::TryStreamExt;

const BATCHES: [usize; 5] = [1, 3, 11, 2, 24];

#[test]
fn every_recorded_state_and_acknowledged_configuration_comes_out_again() {
    for recording in ["bookstore", "relist"] {
        let history = with_proofs(&recorded(recording).records, &BATCHES);
        let report = verify(&history);
        assert_eq!(report.differences, [], "{recording}");
        assert_eq!(report.records, history.len() as u64);
        assert!(report.versions_checked > 30, "{recording}: {} versions", report.versions_checked);
        assert!(report.states_checked > 0, "{recording}");
    }
}

#[tokio::test]
async fn a_history_that_went_through_the_log_proves_itself() {
    let history = with_proofs(&recorded("bookstore").records, &BATCHES);
    let dir = tempfile::tempdir().unwrap();
    {
        let log = SledLog::open(dir.path(), Options::default()).unwrap();
        for batch in history.chunks(13) {
            log.append(batch.iter().map(|record| record.entry.clone()).collect()).await.unwrap();
        }
    }
    let log = SledLog::open(dir.path(), Options::default()).unwrap();
    let batches: Vec<Arc<[Record]>> = log.read(Seq::ZERO).try_collect().await.unwrap();
    let read: Vec<Record> = batches.iter().flat_map(|batch| batch.iter().cloned()).collect();
    assert_eq!(read.len(), history.len());
    let report = verify(&read);
    assert_eq!(report.differences, []);
    assert!(report.versions_checked > 30);
}

#[test]
fn a_forged_acknowledgement_is_named() {
    let mut history = with_proofs(&recorded("bookstore").records, &BATCHES);
    let forged = history.iter_mut().rfind(|record| record.entry.topic == "ack").unwrap();
    let body = String::from_utf8(forged.entry.body.to_vec()).unwrap();
    let at = body.find("\"digest\":\"").unwrap() + 10;
    let digit = if &body[at..=at] == "0" { "1" } else { "0" };
    forged.entry.body = format!("{}{digit}{}", &body[..at], &body[at + 1..]).into();
    let report = verify(&history);
    assert!(matches!(&report.differences[..], [Difference::Config { .. }]), "{:?}", report.differences);
}

#[test]
fn a_record_that_was_taken_out_changes_what_comes_out() {
    let mut history = with_proofs(&recorded("bookstore").records, &[1]);
    let is_split = |record: &Record| record.entry.topic == "object" && record.entry.key.contains("TrafficSplit");
    let split = history.iter().position(is_split).unwrap();
    // In its place is a record that says nothing.
    history[split].entry.topic = "nothing".into();
    assert!(!verify(&history).identical());
}

#[test]
fn an_acknowledgement_of_the_future_is_named() {
    let mut history = with_proofs(&recorded("relist").records, &BATCHES);
    let ack = history.iter().find(|record| record.entry.topic == "ack").unwrap().clone();
    let early = history.iter().position(|record| record.entry.topic == "object").unwrap();
    history[early].entry = ack.entry;
    let report = verify(&history);
    assert!(report.differences.iter().any(|difference| matches!(difference, Difference::Unknown { .. })));
}
