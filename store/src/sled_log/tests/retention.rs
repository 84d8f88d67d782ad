use std::time::Duration;

use super::*;
use crate::Retention;

#[tokio::test]
async fn the_newest_snapshot_not_after_a_seq_is_found() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = open(dir.path());
        log.append(numbered(0..30)).await.unwrap();
        for seq in [5, 10, 20] {
            log.snapshot("catalog", Seq(seq), format!("state at {seq}").into_bytes()).await.unwrap();
        }
        log.snapshot("catalog-2", Seq(15), b"of another name".to_vec()).await.unwrap();
    }
    let log = open(dir.path());
    for (asked, found) in [(4, None), (5, Some(5)), (19, Some(10)), (20, Some(20)), (99, Some(20))] {
        let snapshot = log.latest_snapshot("catalog", Seq(asked)).await.unwrap();
        let expected =
            found.map(|seq| crate::Snapshot { seq: Seq(seq), bytes: format!("state at {seq}").into_bytes() });
        assert_eq!(snapshot, expected, "at or before {asked}");
    }
}

#[tokio::test]
async fn compaction_drops_what_no_snapshot_needs() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for number in 0..30 {
        log.append(numbered([number])).await.unwrap();
    }
    assert!(matches!(log.compact(Seq(20)).await, Err(Error::NoSnapshot { .. })));
    for seq in [5, 12, 25] {
        log.snapshot("catalog", Seq(seq), Vec::new()).await.unwrap();
    }
    log.snapshot("routes", Seq(15), Vec::new()).await.unwrap();
    assert_eq!(log.compact(Seq(20)).await.unwrap(), Seq(13), "the catalog of seq 12 needs record 13");

    assert_eq!(seqs(&all(log.read(START)).await.unwrap()), (13..=30).collect::<Vec<_>>());
    assert!(matches!(all(log.read(Seq(12))).await, Err(Error::Compacted { first: Seq(13), .. })));
    assert!(log.latest_snapshot("catalog", Seq(11)).await.unwrap().is_none(), "what it needs is gone, so it is too");
    assert_eq!(log.latest_snapshot("catalog", Seq(20)).await.unwrap().unwrap().seq, Seq(12));
    drop(log);

    let log = open(dir.path());
    assert_eq!(log.first(), Seq(13));
    let summary = log.verify(|_| ()).unwrap();
    assert_eq!((summary.first, summary.last, summary.damages.len()), (Seq(13), Seq(30), 0));
    assert_eq!(log.append(numbered([30])).await.unwrap(), Seq(31));
}

#[tokio::test]
async fn compaction_waits_for_a_name_that_has_no_older_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for number in 0..30 {
        log.append(numbered([number])).await.unwrap();
    }
    log.snapshot("catalog", Seq(10), Vec::new()).await.unwrap();
    log.snapshot("routes", Seq(28), Vec::new()).await.unwrap();
    assert_eq!(log.compact(Seq(20)).await.unwrap(), Seq(1));
    assert_eq!(all(log.read(START)).await.unwrap().len(), 30);
}

#[tokio::test]
async fn a_log_whose_records_were_all_compacted_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = open(dir.path());
        log.append(numbered(0..5)).await.unwrap();
        log.append(numbered(5..6)).await.unwrap();
        log.snapshot("catalog", Seq(6), Vec::new()).await.unwrap();
        assert_eq!(log.compact(Seq(99)).await.unwrap(), Seq(6), "the frame that ends the history stays");
    }
    let log = open(dir.path());
    assert_eq!(log.append(numbered([6])).await.unwrap(), Seq(7));
    assert_eq!(log.verify(|_| ()).unwrap().damages, []);
}

/// Ten commits, at 100, 200, … µs, and snapshots after the third and the seventh.
async fn ten_commits(dir: &Path) -> SledLog {
    let (log, time) = open_with_clock(dir, 0);
    for number in 1..=10 {
        time.store(number * 100, Ordering::SeqCst);
        log.append(numbered([number])).await.unwrap();
    }
    for seq in [3, 7] {
        log.snapshot("catalog", Seq(seq), Vec::new()).await.unwrap();
    }
    log
}

#[tokio::test]
async fn what_is_too_old_goes_as_far_as_snapshots_allow() {
    let dir = tempfile::tempdir().unwrap();
    let log = ten_commits(dir.path()).await;
    let keep = |micros| Retention { age: Some(Duration::from_micros(micros)), bytes: None };
    // At 1,000 µs: (age to keep, oldest record afterwards).
    for (age, first) in [(5_000, 1), (800, 1), (700, 4), (400, 4), (300, 8), (0, 8)] {
        assert_eq!(log.retain(keep(age), Timestamp(1_000)).await.unwrap(), Seq(first), "keeping {age} µs");
    }
    assert_eq!(seqs(&all(log.read(START)).await.unwrap()), [8, 9, 10]);
    assert_eq!(log.latest_snapshot("catalog", Seq(10)).await.unwrap().unwrap().seq, Seq(7));
}

#[tokio::test]
async fn what_is_too_much_goes_as_far_as_snapshots_allow() {
    let dir = tempfile::tempdir().unwrap();
    let log = ten_commits(dir.path()).await;
    let mut sizes = Vec::new();
    let total = log.verify(|header| sizes.push(u64::from(header.packed_bytes) + 80)).unwrap().frame_bytes;
    assert_eq!(sizes.iter().sum::<u64>(), total);
    let keep = |bytes| Retention { age: None, bytes: Some(bytes) };
    let last = |count: usize| sizes[10 - count..].iter().sum::<u64>();
    for (bytes, first) in [(total, 1), (last(8), 1), (last(7), 4), (last(7), 4), (last(4), 4), (last(3), 8), (0, 8)] {
        assert_eq!(log.retain(keep(bytes), Timestamp(0)).await.unwrap(), Seq(first), "keeping {bytes} bytes");
    }
}

#[tokio::test]
async fn without_a_snapshot_nothing_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(numbered(0..3)).await.unwrap();
    let nothing = Retention { age: Some(Duration::ZERO), bytes: Some(0) };
    assert_eq!(log.retain(nothing, Timestamp(u64::MAX)).await.unwrap(), Seq(1));
}
