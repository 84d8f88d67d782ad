use std::fs;
use std::path::PathBuf;

use super::*;
use crate::OnDamage;

const FRAMES: u64 = 40;

/// The record with this seq: large, and hard to compress, so that the engine's file is of several segments.
fn large(seq: u64) -> Entry {
    let mut state = seq;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    entry(noise.take(64 << 10).collect::<Vec<_>>())
}

/// A log of [`FRAMES`] frames with one record each; gives the engine's main file.
async fn forty_frames(dir: &Path) -> PathBuf {
    let log = open(dir);
    for seq in 1..=FRAMES {
        log.append(vec![large(seq)]).await.unwrap();
    }
    dir.join("sled/db")
}

fn repaired(dir: &Path) -> SledLog {
    SledLog::open(dir, Options { on_damage: OnDamage::PutAside, ..Options::default() }).unwrap()
}

/// What is left is a stretch of the history, and the log goes on after everything that was ever given.
async fn goes_on(dir: &Path, what: &str) -> Vec<u64> {
    let kept = {
        let log = repaired(dir);
        let kept = all(log.read(log.first())).await.unwrap();
        for record in &kept {
            assert!(record.entry == large(record.seq.0), "{what}: record {} is not what it was", record.seq);
        }
        let kept = seqs(&kept);
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{what}: {kept:?}");
        let next = log.append(vec![large(FRAMES + 1)]).await.unwrap();
        assert!(next.0 > FRAMES, "{what}: seq {next} may have been given before");
        let damages = log.verify(|_| ()).unwrap().damages;
        assert!(damages.is_empty(), "{what}: {damages:?}, kept {kept:?}, next {next}");
        kept
    };
    assert!(SledLog::open(dir, Options::default()).is_ok(), "{what}: a repaired log opens as any other");
    kept
}

#[tokio::test]
async fn wherever_a_bit_flips_a_repair_finds_a_way_on() {
    let whole = tempfile::tempdir().unwrap();
    let db = forty_frames(whole.path()).await;
    let (bytes, head) = (fs::read(&db).unwrap(), fs::read(whole.path().join("HEAD")).unwrap());
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut losses, mut salvaged) = (0, 0);
    for at in (0..used).step_by(used / 60) {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path());
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        fs::write(dir.path().join("sled/db"), flipped).unwrap();
        fs::write(dir.path().join("HEAD"), &head).unwrap();
        if let Err(error) = SledLog::open(dir.path(), Options::default()) {
            let error = error.to_string();
            assert!(error.contains("--repair"), "byte {at}: the message names the way on: {error}");
            assert!(!error.contains("backtrace"), "byte {at}: {error}");
        }
        let kept = goes_on(dir.path(), &format!("byte {at}")).await;
        losses += FRAMES - kept.len() as u64;
        salvaged += usize::from(dir.path().join("aside/sled-1/db").is_file());
    }
    assert!(losses > 0, "no flip hit a frame: the test looks at the wrong place");
    assert!(salvaged > 0, "the engine opened every time: the test proves nothing of a salvage");
}

#[tokio::test]
async fn a_repair_that_was_cut_short_before_its_last_step_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    forty_frames(dir.path()).await;
    fs::rename(dir.path().join("sled"), dir.path().join("salvaged")).unwrap();
    let log = open(dir.path());
    assert_eq!(all(log.read(START)).await.unwrap().len() as u64, FRAMES);
}
