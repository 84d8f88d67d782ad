//! A snapshot stands for all the history before it: what follows comes out the same.

use fsm_actors::Core;
use fsm_actors::core::snapshot::{Restored, restore, write};
use fsm_actors::core::{Skips, beginning, rebuild};
use fsm_actors::replay::verify;
use fsm_actors::snapshots;
use fsm_replay_tests::{recorded, with_proofs};
use fsm_store::{EventLog, ExportFile, ExportWriter, Options, Record, Seq, SledLog};
use futures::TryStreamExt;
use proptest::prelude::*;

use crate::determinism::digests;

/// The core after records, through a snapshot and back.
fn through_a_snapshot(core: &Core) -> Core {
    let bytes = write(core);
    let Restored { core: back, differing } = restore(&bytes).unwrap();
    assert_eq!(differing, Vec::<String>::new(), "at seq {}", core.seq());
    assert_eq!(write(&back), bytes, "at seq {}", core.seq());
    back
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn a_core_that_is_put_away_again_and_again_stays_the_same(
        distances in prop::collection::vec(1..160_usize, 1..12),
        recording in prop::sample::select(&["bookstore", "relist"][..]),
    ) {
        let records = with_proofs(&recorded(recording).records, &[1, 4, 9]);
        let (mut straight, mut put_away) = (Core::default(), Core::default());
        let mut rest = &records[..];
        for distance in distances.iter().cycle() {
            if rest.is_empty() { break; }
            let (stretch, after) = rest.split_at((*distance).min(rest.len()));
            rest = after;
            straight.apply(stretch);
            put_away.apply(stretch);
            prop_assert_eq!(digests(&put_away), digests(&straight), "at seq {}", straight.seq());
            for proxy in straight.proxies() {
                prop_assert_eq!(put_away.config_of(proxy), straight.config_of(proxy));
            }
            put_away = through_a_snapshot(&put_away);
        }
        prop_assert_eq!(digests(&put_away), digests(&straight));
    }
}

/// A log with this history; small commits.
async fn log_of(records: &[Record], dir: &std::path::Path) -> SledLog {
    let log = SledLog::open(dir, Options::default()).unwrap();
    for batch in records.chunks(17) {
        log.append(batch.iter().map(|record| record.entry.clone()).collect()).await.unwrap();
    }
    log
}

async fn all(log: &dyn EventLog) -> Vec<Record> {
    let batches: Vec<_> = log.read(Seq::ZERO).try_collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.iter().cloned()).collect()
}

#[tokio::test]
async fn a_compacted_log_leads_to_the_same_states_as_the_whole_one() {
    let history = with_proofs(&recorded("bookstore").records, &[1, 3, 11]);
    let dir = tempfile::tempdir().unwrap();
    let (before, after) = history.split_at(history.len() / 2);
    let log = log_of(before, dir.path()).await;
    let taken = snapshots::take(&log).await.unwrap();
    assert_eq!(taken, Seq(before.len() as u64));
    for batch in after.chunks(17) {
        log.append(batch.iter().map(|record| record.entry.clone()).collect()).await.unwrap();
    }
    assert!(log.compact(log.last()).await.unwrap() > Seq(1));

    for upto in [taken.0, taken.0 + 1, (taken.0 + history.len() as u64) / 2, history.len() as u64] {
        let core = rebuild(&log, Seq(upto), Skips::new()).await.unwrap();
        let mut whole = Core::default();
        whole.apply(&history[..upto as usize]);
        assert_eq!(digests(&core), digests(&whole), "at seq {upto}");
    }
    let error = rebuild(&log, Seq(taken.0 - 1), Skips::new()).await.unwrap_err();
    assert!(error.to_string().contains("no snapshot"), "{error}");
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_used_is_passed_over() {
    let history = recorded("bookstore").records;
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(&history, dir.path()).await;
    let good = snapshots::take(&log).await.unwrap();
    let bytes = log.latest_snapshot(fsm_actors::core::SNAPSHOT, good).await.unwrap().unwrap().bytes;
    let text = String::from_utf8(bytes).unwrap();
    log.append(vec![history[0].entry.clone(); 9]).await.unwrap();
    let expected = rebuild(&log, log.last(), Skips::new()).await.unwrap();
    // Of a newer version; damaged; of another state than it says.
    let unusable = [
        text.replacen("\"format\":1", "\"format\":9", 1),
        text[..text.len() / 2].to_owned(),
        text.replacen("\"bookstore\"", "\"bookshop\"", 1),
        String::new(),
    ];
    for (later, text) in unusable.into_iter().enumerate() {
        let seq = Seq(good.0 + 1 + later as u64);
        log.snapshot(fsm_actors::core::SNAPSHOT, seq, text.into_bytes()).await.unwrap();
        let core = rebuild(&log, log.last(), Skips::new()).await.unwrap();
        assert_eq!(digests(&core), digests(&expected), "with a bad snapshot at {seq}");
    }
}

#[tokio::test]
async fn of_many_snapshots_that_cannot_be_used_a_good_one_is_found() {
    let history = recorded("bookstore").records;
    let dir = tempfile::tempdir().unwrap();
    let log = log_of(&history[..40], dir.path()).await;
    let good = snapshots::take(&log).await.unwrap();
    let later: Vec<_> = history[40..].iter().map(|record| record.entry.clone()).collect();
    log.append(later).await.unwrap();
    for seq in good.0 + 1..=log.last().0 {
        log.snapshot(fsm_actors::core::SNAPSHOT, Seq(seq), b"of no use".to_vec()).await.unwrap();
    }
    let mut whole = Core::default();
    whole.apply(&history);
    // With the first records that snapshot may be passed over, without them it must not be.
    let anywhere = beginning(&log, log.last(), &Skips::new()).await.unwrap();
    assert!([Seq::ZERO, good].contains(&anywhere.seq()), "{}", anywhere.seq());
    assert_eq!(digests(&rebuild(&log, log.last(), Skips::new()).await.unwrap()), digests(&whole));

    assert!(log.compact(good.next()).await.unwrap() > Seq(1));
    assert_eq!(beginning(&log, log.last(), &Skips::new()).await.unwrap().seq(), good);
    assert_eq!(digests(&rebuild(&log, log.last(), Skips::new()).await.unwrap()), digests(&whole));
}

#[tokio::test]
async fn a_part_of_history_as_a_file_proves_itself() {
    let history = with_proofs(&recorded("relist").records, &[1, 2, 5]);
    let dir = tempfile::tempdir().unwrap();
    let from = history.len() / 3;
    let path = dir.path().join("part.fsmlog");
    let mut writer = ExportWriter::new(std::fs::File::create(&path).unwrap(), &path, false).unwrap();
    let mut core = Core::default();
    core.apply(&history[..from]);
    writer.snapshot(fsm_actors::core::SNAPSHOT, core.seq(), &write(&core)).unwrap();
    history[from..].chunks(40).for_each(|chunk| writer.records(chunk).unwrap());
    writer.finish().unwrap();

    let export = ExportFile::open(&path).unwrap();
    let end = rebuild(&export, Seq(u64::MAX), Skips::new()).await.unwrap();
    core.apply(&all(&export).await);
    assert_eq!(digests(&end), digests(&core));
    assert!(verify(&history).identical());

    // As a log of its own it leads to the same.
    SledLog::import(dir.path().join("log"), &export).unwrap();
    let log = SledLog::open(dir.path().join("log"), Options::default()).unwrap();
    let imported = rebuild(&log, log.last(), Skips::new()).await.unwrap();
    assert_eq!(digests(&imported), digests(&end));
}
