use std::fs;

use super::*;
use crate::sled_log::engine::open_engine;
use crate::sled_log::store::engine_dir;
use crate::{Damage, Gap, OnDamage};

/// Changes what the storage engine holds, behind the log's back.
fn tamper(dir: &Path, change: impl FnOnce(&sled::Tree)) {
    let db = open_engine(dir, &engine_dir(dir), 1 << 20).unwrap();
    change(&db.open_tree("frames").unwrap());
    db.flush().unwrap();
}

fn flip_a_bit(frames: &sled::Tree, first_seq: u64) {
    let key = first_seq.to_be_bytes();
    let mut frame = frames.get(key).unwrap().unwrap().to_vec();
    let middle = frame.len() / 2;
    frame[middle] ^= 1;
    frames.insert(key, frame).unwrap();
}

/// A log of four frames with three records each.
async fn four_frames(dir: &Path) {
    let log = open(dir);
    for frame in 0..4 {
        log.append(numbered(3 * frame + 1..3 * frame + 4)).await.unwrap();
    }
}

fn refused(dir: &Path) -> Error {
    SledLog::open(dir, Options::default()).expect_err("the log is damaged")
}

fn with(on_damage: OnDamage) -> Options {
    Options { on_damage, ..Options::default() }
}

#[tokio::test]
async fn a_damaged_last_frame_is_named_and_what_is_before_it_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    four_frames(dir.path()).await;
    tamper(dir.path(), |frames| flip_a_bit(frames, 10));

    let error = refused(dir.path());
    assert!(
        matches!(error, Error::Damaged { damage: Damage::Frame { first_seq: Seq(10), .. }, kept: Seq(9), .. }),
        "{error}"
    );
    assert!(error.to_string().contains("--repair"), "the message names the way on: {error}");

    let log = SledLog::open(dir.path(), with(OnDamage::ReadIntact)).unwrap();
    assert_eq!(seqs(&all(log.read(START)).await.unwrap()), (1..=9).collect::<Vec<_>>());
    let refusal = log.append(numbered([1])).await.unwrap_err();
    assert!(matches!(refusal, Error::Stopped { last: Seq(9), .. }), "{refusal}");
    drop(log);
    let error = refused(dir.path());
    assert!(matches!(error, Error::Damaged { .. }), "reading repaired nothing: {error}");
}

#[tokio::test]
async fn a_repair_puts_the_damage_aside_and_never_gives_a_seq_again() {
    let dir = tempfile::tempdir().unwrap();
    four_frames(dir.path()).await;
    tamper(dir.path(), |frames| flip_a_bit(frames, 10));
    drop(SledLog::open(dir.path(), with(OnDamage::PutAside)).unwrap());
    assert!(dir.path().join("aside/00000000000000000010.frame").exists());

    const LATER: u64 = 1 << 60;
    let (log, clock) = open_with_clock(dir.path(), LATER);
    assert_eq!(log.last(), Seq(9));
    assert_eq!(log.append(numbered([13])).await.unwrap(), Seq(13));
    clock.store(LATER + 100, Ordering::SeqCst);
    assert_eq!(log.append(numbered([14])).await.unwrap(), Seq(14));
    assert_eq!(seqs(&all(log.read(Seq(8))).await.unwrap()), [8, 9, 13, 14]);
    assert_eq!(seqs(&all(log.read(Seq(11))).await.unwrap()), [13, 14]);
    for (time, seq) in [(LATER - 1, 9), (LATER, 13), (LATER + 99, 13), (LATER + 100, 14)] {
        assert_eq!(log.at(Timestamp(time)).await.unwrap(), Seq(seq), "at {time}");
    }
    drop(log);
    let summary = open(dir.path()).verify(|_| ()).unwrap();
    assert_eq!(summary.damages, []);
    assert_eq!(summary.gaps, [Gap { from: Seq(10), to: Seq(12) }]);
}

#[tokio::test]
async fn damage_in_the_middle_is_found_by_reading_and_by_verify() {
    let dir = tempfile::tempdir().unwrap();
    four_frames(dir.path()).await;
    tamper(dir.path(), |frames| flip_a_bit(frames, 4));
    let log = open(dir.path());
    let error = all(log.read(START)).await.unwrap_err();
    assert!(
        matches!(error, Error::Damaged { damage: Damage::Frame { first_seq: Seq(4), .. }, kept: Seq(3), .. }),
        "{error}"
    );
    let summary = log.verify(|_| ()).unwrap();
    assert!(matches!(&summary.damages[..], [Damage::Frame { first_seq: Seq(4), .. }]), "{:?}", summary.damages);
    assert_eq!(summary.records, 9);
    drop(log);

    let log = SledLog::open(dir.path(), with(OnDamage::PutAside)).unwrap();
    assert_eq!(log.append(numbered([13])).await.unwrap(), Seq(13));
    assert_eq!(seqs(&all(log.read(START)).await.unwrap()), [1, 2, 3, 13]);
    assert_eq!(log.verify(|_| ()).unwrap().damages, []);
}

#[tokio::test]
async fn a_frame_replaced_by_another_valid_one_breaks_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    four_frames(dir.path()).await;
    tamper(dir.path(), |frames| {
        let frame = frames.get(4_u64.to_be_bytes()).unwrap().unwrap();
        let (header, records) = crate::frame::decode(&frame).unwrap();
        let mut records = records.to_vec();
        records[0].entry.body = b"history rewritten"[..].into();
        frames.insert(4_u64.to_be_bytes(), crate::frame::encode(&records, header.previous, false).unwrap()).unwrap();
    });
    let damages = open(dir.path()).verify(|_| ()).unwrap().damages;
    assert!(matches!(&damages[..], [Damage::Chain { first_seq: Seq(7), .. }]), "{damages:?}");
}

#[tokio::test]
async fn a_last_frame_replaced_by_another_valid_one_is_noticed_at_opening_and_can_be_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    four_frames(dir.path()).await;
    tamper(dir.path(), |frames| {
        let frame = frames.get(10_u64.to_be_bytes()).unwrap().unwrap();
        let (header, records) = crate::frame::decode(&frame).unwrap();
        let mut records = records.to_vec();
        records[2].entry.body = b"history rewritten"[..].into();
        frames.insert(10_u64.to_be_bytes(), crate::frame::encode(&records, header.previous, false).unwrap()).unwrap();
    });
    let error = refused(dir.path());
    assert!(
        matches!(error, Error::Damaged { damage: Damage::Chain { first_seq: Seq(10), .. }, kept: Seq(9), .. }),
        "{error}"
    );
    let log = SledLog::open(dir.path(), with(OnDamage::PutAside)).unwrap();
    assert_eq!(log.append(numbered([0])).await.unwrap(), Seq(13));
}

#[tokio::test]
async fn acknowledged_records_that_are_missing_are_named() {
    let dir = tempfile::tempdir().unwrap();
    four_frames(dir.path()).await;
    tamper(dir.path(), |frames| {
        frames.remove(10_u64.to_be_bytes()).unwrap();
        frames.remove(7_u64.to_be_bytes()).unwrap();
    });
    let error = refused(dir.path());
    let lost = Damage::Lost { from: Seq(7), to: Seq(12) };
    assert!(matches!(&error, Error::Damaged { damage, kept: Seq(6), .. } if *damage == lost), "{error}");
    let log = SledLog::open(dir.path(), with(OnDamage::PutAside)).unwrap();
    assert_eq!(log.append(numbered([0])).await.unwrap(), Seq(13));
    assert_eq!(log.verify(|_| ()).unwrap().gaps, [Gap { from: Seq(7), to: Seq(12) }]);
}

#[tokio::test]
async fn a_missing_head_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    four_frames(dir.path()).await;
    fs::remove_file(dir.path().join("HEAD")).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, Error::Damaged { damage: Damage::Head { last: Seq(12) }, .. }), "{error}");
    let log = SledLog::open(dir.path(), with(OnDamage::PutAside)).unwrap();
    assert_eq!(seqs(&all(log.read(START)).await.unwrap()).len(), 12);
    assert!(log.append(numbered([0])).await.unwrap() > Seq(1_000_000), "nobody knows which seqs were given");
}

#[tokio::test]
async fn a_frame_of_a_newer_format_is_not_taken_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    four_frames(dir.path()).await;
    tamper(dir.path(), |frames| {
        let mut frame = frames.get(10_u64.to_be_bytes()).unwrap().unwrap().to_vec();
        frame[4] = 3;
        frames.insert(10_u64.to_be_bytes(), frame).unwrap();
    });
    for on_damage in [OnDamage::Refuse, OnDamage::ReadIntact, OnDamage::PutAside] {
        let error = SledLog::open(dir.path(), with(on_damage)).unwrap_err();
        assert!(matches!(error, Error::Newer { found: 3, known: 2, .. }), "{error}");
    }
}

#[test]
fn a_directory_of_a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("FORMAT"), "fsm event log\nformat 2\n").unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, Error::Newer { found: 2, known: 1, .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, Error::Foreign { found, .. } if found == "\"thesis.tex\""), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let file = dir.path().join("thesis.tex");
    assert!(matches!(refused(&file), Error::Foreign { .. }));
}

#[test]
fn a_directory_without_a_log_is_not_made_one_by_looking() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert!(matches!(SledLog::open(&missing, Options::inspect()), Err(Error::Missing { .. })));
    assert!(!missing.exists());
}

#[test]
fn a_log_in_use_names_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let _log = open(dir.path());
    let error = refused(dir.path());
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}
