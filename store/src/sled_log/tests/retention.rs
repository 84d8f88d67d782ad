use super::*;

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
