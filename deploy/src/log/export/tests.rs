use fsm_actors::Fact;
use fsm_actors::core::Core;
use fsm_store::{Options, TraceContext};
use serde_json::json;

use super::super::{compact, verify};
use super::*;

/// A log of 40 records: a pod whose environment holds something private, again and again.
async fn log(dir: &Path) {
    let log = SledLog::open(dir, Options::default()).unwrap();
    for number in 1..=40 {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("web-{}", number % 7), "namespace": "shop", "resourceVersion": number.to_string()},
            "spec": {"containers": [{"name": "app", "env": [{"name": "PASSWORD", "value": "hunter2"}]}]}});
        log.append(vec![Fact::applied("v1/Pod", &pod).to_entry(TraceContext::default())]).await.unwrap();
    }
}

fn exporting(dir: &Path, file: &Path, from: Option<u64>, to: Option<u64>, redact: bool) -> ExportArgs {
    let moment = |seq: Option<u64>| seq.map(|seq| Moment::Seq(Seq(seq)));
    ExportArgs {
        history: HistoryArgs { data_dir: Some(dir.into()), controller: String::new() },
        from: moment(from),
        to: moment(to),
        redact,
        output: Format::Json,
        file: file.into(),
    }
}

/// The state at a seq, as one sees it in a history.
async fn at(place: &Path, seq: u64) -> Core {
    let history = History::open(place.into()).unwrap();
    rebuild(history.log().unwrap(), Seq(seq), Skips::new()).await.unwrap()
}

#[tokio::test]
async fn a_part_of_history_leads_to_the_same_states_in_a_file_and_in_a_log_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, file, own) = (dir.path().join("log"), dir.path().join("part.fsmlog"), dir.path().join("own"));
    log(&whole).await;
    run(exporting(&whole, &file, Some(11), Some(30), false)).await.unwrap();
    import(ImportArgs { file: file.clone(), data_dir: own.clone(), output: Format::Json }).unwrap();
    for seq in [11, 20, 30] {
        let expected = at(&whole, seq).await.digests();
        assert_eq!(at(&file, seq).await.digests(), expected, "in the file at seq {seq}");
        assert_eq!(at(&own, seq).await.digests(), expected, "in the log of its own at seq {seq}");
    }
    // Of a part, a part can be taken.
    let smaller = dir.path().join("smaller.fsmlog");
    run(exporting(&file, &smaller, Some(20), None, false)).await.unwrap();
    assert_eq!(at(&smaller, 25).await.digests(), at(&whole, 25).await.digests());
    let again = run(exporting(&whole, &file, None, None, false)).await.unwrap_err();
    assert!(again.to_string().contains("is there already"), "{again}");
}

#[tokio::test]
async fn an_export_is_verified_as_a_log_is() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, file) = (dir.path().join("log"), dir.path().join("part.fsmlog"));
    log(&whole).await;
    run(exporting(&whole, &file, Some(11), Some(30), false)).await.unwrap();
    let verify = |repair| verify::run(verify::VerifyArgs { data_dir: file.clone(), repair, output: Format::Json });
    verify(false).await.unwrap();
    assert!(verify(true).await.unwrap_err().to_string().contains("cannot be repaired"));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(verify(false).await.unwrap_err().to_string().contains("is damaged"));
}

#[tokio::test]
async fn a_redacted_export_holds_nothing_private_and_leads_to_the_same_pods() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, file) = (dir.path().join("log"), dir.path().join("part.fsmlog"));
    log(&whole).await;
    run(exporting(&whole, &file, Some(20), None, true)).await.unwrap();
    let past = at(&file, 40).await;
    for (_, object) in past.catalog().objects().iter() {
        assert!(!object.json.get().contains("hunter2"), "{:?}", object.json);
    }
    let (redacted, original) = (past.digests(), at(&whole, 40).await.digests());
    for machine in ["certs", "injection", "publisher", "routes", "splits"] {
        assert_eq!(redacted.get(machine), original.get(machine), "{machine}");
    }
    assert!(ExportFile::open(&file).unwrap().summary().redacted);
}

#[tokio::test]
async fn what_compaction_leaves_leads_to_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("log");
    log(&whole).await;
    let expected = at(&whole, 40).await.digests();
    let compacting = |before| compact::CompactArgs { data_dir: whole.clone(), before, output: Format::Json };
    compact::run(compacting(Moment::Seq(Seq(30)))).await.unwrap();
    assert_eq!(at(&whole, 20).await.seq(), Seq(20), "no snapshot is older than that: nothing was dropped");
    compact::run(compacting(Moment::Seq(Seq(99)))).await.unwrap();
    let history = History::open(whole.clone()).unwrap();
    assert_eq!(history.log().unwrap().first(), Seq(40));
    drop(history);
    assert_eq!(at(&whole, 40).await.digests(), expected);
}

#[tokio::test]
async fn what_is_not_there_is_not_exported() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, file) = (dir.path().join("log"), dir.path().join("part.fsmlog"));
    log(&whole).await;
    assert!(run(exporting(&whole, &file, Some(41), None, false)).await.is_err());
    assert!(run(exporting(&whole, &file, Some(9), Some(3), false)).await.is_err());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["log"], "nothing half-written stays");
}
