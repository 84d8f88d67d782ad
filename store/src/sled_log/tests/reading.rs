use std::time::Duration;

use futures::StreamExt;

use super::*;

#[tokio::test]
async fn read_begins_within_a_batch_and_ends_at_the_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for start in [0, 10, 20] {
        log.append(numbered(start..start + 10)).await.unwrap();
    }
    assert_eq!(seqs(&all(log.read(Seq(14))).await.unwrap()), (14..=30).collect::<Vec<_>>());
    assert_eq!(seqs(&all(log.read(Seq(31))).await.unwrap()), []);
    let batches: Vec<_> = log.read(Seq(14)).try_collect().await.unwrap();
    assert_eq!(batches.iter().map(|batch| batch.len()).collect::<Vec<_>>(), [7, 10]);
}

#[tokio::test]
async fn read_does_not_see_what_is_appended_after_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(numbered(0..5)).await.unwrap();
    let records = log.read(START);
    log.append(numbered(5..9)).await.unwrap();
    assert_eq!(all(records).await.unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tails_that_begin_at_any_moment_see_every_record_once() {
    const RECORDS: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path()));
    log.append(numbered(0..100)).await.unwrap();
    let writer = {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            for number in 100..RECORDS {
                let answer = log.append(numbered([number]));
                if number % 7 == 0 {
                    answer.await.unwrap();
                }
            }
        })
    };
    let tails = (0..8).map(|place| {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            log.append(Vec::new()).await.unwrap();
            let from = place * 40;
            let mut tail = log.tail(Seq(from));
            let mut next = from.max(1);
            while next <= RECORDS {
                for record in tail.next().await.unwrap().unwrap().iter() {
                    assert_eq!(record.seq.0, next);
                    assert_eq!(number(record), next - 1);
                    next += 1;
                }
            }
        })
    });
    for tail in tails.collect::<Vec<_>>() {
        tail.await.unwrap();
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_tail_waits_for_records_and_ends_when_the_log_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut tail = log.tail(START);
    assert!(futures::poll!(tail.next()).is_pending(), "an empty log has nothing to give");
    log.append(numbered([1])).await.unwrap();
    assert_eq!(tail.next().await.unwrap().unwrap().len(), 1);
    let mut late = log.tail(Seq(5));
    assert!(futures::poll!(late.next()).is_pending(), "record 5 is still to come");
    drop(log);
    assert!(tail.next().await.is_none());
    assert!(late.next().await.is_none());
    tokio::time::timeout(Duration::from_secs(20), async { open(dir.path()) })
        .await
        .expect("the directory is free again");
}

#[tokio::test]
async fn at_gives_the_last_record_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let (log, clock) = open_with_clock(dir.path(), 0);
    assert_eq!(log.at(Timestamp(50)).await.unwrap(), Seq::ZERO);
    for (time, count) in [(100, 3), (100, 2), (250, 1), (400, 4)] {
        clock.store(time, Ordering::SeqCst);
        log.append(numbered(0..count)).await.unwrap();
    }
    let expected = [(0, 0), (99, 0), (100, 5), (249, 5), (250, 6), (399, 6), (400, 10), (9_999, 10)];
    for (time, seq) in expected {
        assert_eq!(log.at(Timestamp(time)).await.unwrap(), Seq(seq), "at {time}");
    }
}
