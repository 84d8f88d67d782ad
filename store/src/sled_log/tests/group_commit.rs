use std::collections::BTreeSet;

use futures::future::join_all;

use super::*;
use crate::Durability;

#[tokio::test]
async fn appended_entries_get_adjacent_seqs_and_survive_reopening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = open(dir.path());
        assert_eq!(log.last(), Seq::ZERO);
        assert_eq!(log.append(numbered(1..4)).await.unwrap(), Seq(3));
        assert_eq!(log.append(numbered(4..5)).await.unwrap(), Seq(4));
        assert_eq!(log.last(), Seq(4));
    }
    let log = open(dir.path());
    assert_eq!(log.last(), Seq(4));
    let records = all(log.read(START)).await.unwrap();
    assert_eq!(seqs(&records), [1, 2, 3, 4]);
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(log.append(numbered([5])).await.unwrap(), Seq(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_share_commits_and_each_gets_its_own_seqs() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path()));
    let tasks = (0..200_u64).map(|task| {
        let log = Arc::clone(&log);
        tokio::spawn(async move { (task, log.append(numbered([2 * task, 2 * task + 1])).await.unwrap()) })
    });
    let answers: Vec<(u64, Seq)> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    let distinct: BTreeSet<Seq> = answers.iter().map(|(_, seq)| *seq).collect();
    assert_eq!(distinct.len(), 200);
    assert_eq!(log.last(), Seq(400));
    let frames = log.verify(|_| ()).unwrap().frames;
    assert!(frames < 200, "200 appends made {frames} commits");
    drop(log);

    let log = open(dir.path());
    let records = all(log.read(START)).await.unwrap();
    assert_eq!(seqs(&records), (1..=400).collect::<Vec<_>>());
    for (task, seq) in answers {
        let (first, second) = (&records[seq.0 as usize - 2], &records[seq.0 as usize - 1]);
        assert_eq!((number(first), number(second)), (2 * task, 2 * task + 1), "the entries of one append are adjacent");
    }
}

#[tokio::test]
async fn the_order_of_calls_is_the_order_of_records_however_late_they_are_awaited() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut answers: Vec<_> = (0..50).map(|number| log.append(numbered([number]))).collect();
    answers.reverse();
    join_all(answers).await;
    let records = all(log.read(START)).await.unwrap();
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_append_whose_caller_went_away_is_still_appended() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = open(dir.path());
        drop(log.append(numbered([7])));
    }
    assert_eq!(all(open(dir.path()).read(START)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_append_of_nothing_waits_for_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let before = log.append(numbered(0..10));
    assert_eq!(log.append(Vec::new()).await.unwrap(), Seq(10));
    assert_eq!(before.await.unwrap(), Seq(10));
}

#[tokio::test]
async fn times_do_not_go_back_with_the_clock_nor_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (log, clock) = open_with_clock(dir.path(), 1_000);
        log.append(numbered([1])).await.unwrap();
        clock.store(500, Ordering::SeqCst);
        log.append(numbered([2])).await.unwrap();
    }
    let (log, clock) = open_with_clock(dir.path(), 700);
    log.append(numbered([3])).await.unwrap();
    clock.store(2_000, Ordering::SeqCst);
    log.append(numbered([4])).await.unwrap();
    let times: Vec<u64> = all(log.read(START)).await.unwrap().iter().map(|record| record.time.0).collect();
    assert_eq!(times, [1_000, 1_000, 1_000, 2_000]);
}

#[tokio::test]
async fn an_append_too_large_for_a_frame_is_refused_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let large = vec![entry(vec![0; 40 << 20]), entry(vec![0; 40 << 20])];
    let (refused, accepted) = (log.append(large), log.append(numbered([1])));
    assert!(matches!(refused.await, Err(Error::TooLarge { entries: 2, .. })));
    assert_eq!(accepted.await.unwrap(), Seq(1));
}

#[tokio::test]
async fn an_append_larger_than_a_commit_stays_together() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let noise: Vec<u8> = (0..3_u32 << 20).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    log.append(noise.chunks(1 << 20).map(|chunk| entry(chunk.to_vec())).collect()).await.unwrap();
    drop(log);
    let summary = open(dir.path()).verify(|_| ()).unwrap();
    assert_eq!((summary.frames, summary.records, summary.damages.len()), (1, 3, 0));
}

#[tokio::test]
async fn the_power_durable_mode_keeps_the_same_promises() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Power, ..Options::default() };
    {
        let log = SledLog::open(dir.path(), options.clone()).unwrap();
        join_all((0..20).map(|number| log.append(numbered([number])))).await;
        // Large enough that the storage engine puts it in a file of its own.
        let noise: Vec<u8> = (0..1_u32 << 20).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        log.append(vec![entry(noise)]).await.unwrap();
    }
    let log = SledLog::open(dir.path(), options).unwrap();
    assert_eq!(all(log.read(START)).await.unwrap().len(), 21);
    assert_eq!(log.verify(|_| ()).unwrap().damages, []);
}
