use std::fs;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use proptest::prelude::*;

use super::*;
use crate::{Entry, Error, EventLog, Options, Record, SledLog, TraceContext};

fn record(seq: u64) -> Record {
    let entry = Entry {
        topic: "object".into(),
        key: format!("v1/Pod default/web-{seq}").into(),
        body: format!("{{\"number\":{seq}}}").into(),
        trace: TraceContext { trace_id: [seq as u8; 16], ..TraceContext::default() },
    };
    Record { seq: Seq(seq), time: Timestamp(seq * 10), entry }
}

fn records(seqs: impl IntoIterator<Item = u64>) -> Vec<Record> {
    seqs.into_iter().map(record).collect()
}

/// Records 8 to 20, in frames of five, and what was before as a snapshot.
fn export(path: &Path) -> ExportSummary {
    let mut writer = ExportWriter::new(fs::File::create(path).unwrap(), path, false).unwrap();
    writer.snapshot("core", Seq(7), b"what was before").unwrap();
    records(8..=20).chunks(5).for_each(|chunk| writer.records(chunk).unwrap());
    writer.finish().unwrap().1
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn read(log: &dyn EventLog, from: Seq) -> Result<Vec<Record>, Error> {
    let batches: Vec<_> = wait(log.read(from).try_collect())?;
    Ok(batches.iter().flat_map(|batch| batch.iter().cloned()).collect())
}

#[test]
fn what_was_exported_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.fsmlog");
    let summary = export(&path);
    assert_eq!((summary.first, summary.last, summary.records, summary.frames), (Seq(8), Seq(20), 13, 3));
    if std::env::var_os("FSM_RECORD").is_some() {
        fs::copy(&path, recorded(crate::frame::FORMAT)).unwrap();
    }

    assert!(ExportFile::is_one(&path));
    let file = ExportFile::open(&path).unwrap();
    assert!(file.damage().is_none());
    assert_eq!(file.summary(), summary);
    assert_eq!(read(&file, Seq::ZERO).unwrap(), records(8..=20));
    assert_eq!(read(&file, Seq(14)).unwrap(), records(14..=20));
    assert!(matches!(read(&file, Seq(7)), Err(Error::Compacted { first: Seq(8), .. })));
    for (time, seq) in [(79, 0), (80, 8), (135, 13), (999, 20)] {
        assert_eq!(wait(EventLog::at(&file, Timestamp(time))).unwrap(), Seq(seq));
    }
    let found = wait(EventLog::latest_snapshot(&file, "core", Seq(99))).unwrap().unwrap();
    assert_eq!((found.seq, &found.bytes[..]), (Seq(7), &b"what was before"[..]));
    assert!(matches!(wait(file.append(Vec::new())), Err(Error::ReadOnly { .. })));
}

#[tokio::test]
async fn an_import_is_the_same_history() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.fsmlog");
    export(&path);
    let file = ExportFile::open(&path).unwrap();
    let target = dir.path().join("log");
    SledLog::import(&target, &file).unwrap();
    assert!(matches!(SledLog::import(&target, &file), Err(Error::Occupied { .. })));

    let log = SledLog::open(&target, Options::default()).unwrap();
    assert_eq!((log.first(), log.last()), (Seq(8), Seq(20)));
    let batches: Vec<_> = log.read(Seq::ZERO).try_collect().await.unwrap();
    let held: Vec<Record> = batches.iter().flat_map(|batch| batch.iter().cloned()).collect();
    assert_eq!(held, records(8..=20));
    assert_eq!(log.latest_snapshot("core", Seq(99)).await.unwrap().unwrap().seq, Seq(7));
    assert_eq!(log.verify(|_| ()).unwrap().damages, []);
    assert_eq!(log.append(vec![record(21).entry]).await.unwrap(), Seq(21), "it goes on");
}

#[test]
fn an_export_that_is_cut_short_is_named_and_read_up_to_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.fsmlog");
    export(&path);
    let whole = fs::read(&path).unwrap();
    for length in HEADER_BYTES..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let file = ExportFile::open(&path).unwrap();
        let kept = file.summary().last;
        assert!(matches!(file.damage(), Some(Error::ExportDamaged { kept: said, .. }) if *said == kept), "{length}");
        assert_eq!(read(&file, Seq::ZERO).unwrap(), records(8..=kept.0), "{length}");
        assert!(SledLog::import(dir.path().join("log"), &file).is_err());
    }
    assert!(!dir.path().join("log").exists(), "a damaged export begins no log");
}

#[test]
fn what_is_no_export_and_what_is_newer_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.fsmlog");
    for text in ["", "FSM", "{\"seq\":1}\n{\"seq\":2}"] {
        fs::write(&path, text).unwrap();
        assert!(matches!(ExportFile::open(&path), Err(Error::NoExport { .. })), "{text:?}");
    }
    export(&path);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4] = 2;
    fs::write(&path, bytes).unwrap();
    assert!(matches!(ExportFile::open(&path), Err(Error::Newer { found: 2, known: 1, .. })));
}

/// An export with frames of this format, written by the first version that knew it.
fn recorded(format: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/export/recorded/frames-{format}.fsmlog"))
}

#[test]
fn recorded_exports_of_every_format_stay_readable() {
    for format in 1..=crate::frame::FORMAT {
        let file = ExportFile::open(recorded(format)).unwrap();
        assert!(file.damage().is_none(), "frames of format {format}");
        assert_eq!(read(&file, Seq::ZERO).unwrap(), records(8..=20), "frames of format {format}");
        let found = wait(EventLog::latest_snapshot(&file, "core", Seq(7))).unwrap().unwrap();
        assert_eq!(found.bytes, b"what was before", "frames of format {format}");
    }
}

proptest! {
    /// One changed bit: either the damage is noticed, or what is read is what was written.
    #[test]
    fn a_flipped_bit_never_changes_a_record(place in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.fsmlog");
        export(&path);
        let mut bytes = fs::read(&path).unwrap();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = ExportFile::open(&path) {
            prop_assert!(file.damage().is_some(), "bit {bit} of byte {place} was flipped unnoticed");
            let held = read(&file, Seq::ZERO).unwrap();
            let kept = file.summary().last.0;
            prop_assert_eq!(held, records(8..=kept));
        }
    }
}
