//! From what a watcher saw to the records of a log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use fsm_actors::Fact;
use fsm_actors::fact::ControllerStarted;
use fsm_actors::watch::{KindWatch, Seen};
use fsm_api::KindInfo;
use fsm_store::{Record, Seq, Timestamp, TraceContext};
use serde::Deserialize;
use serde_json::{Value, json};

/// When recordings begin: 2026-11-22T23:18:37Z.
const START_US: u64 = 1_795_389_517_000_000;

/// A recording as a log.
pub struct Recorded {
    pub records: Vec<Record>,
}

#[derive(Deserialize)]
struct Line {
    t_ms: f64,
    gvk: String,
    #[serde(rename = "type")]
    event: String,
    object: Value,
}

/// Reads `recordings/<name>.jsonl.zst`, through the same code that turns a controller's watches into facts.
///
/// # Panics
/// If the recording is missing or damaged.
pub fn recorded(name: &str) -> Recorded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("recordings/{name}.jsonl.zst"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = BufReader::new(zstd::Decoder::new(file).expect("recordings are zstd")).lines();

    let mut recorded = Recorded { records: Vec::new() };
    recorded.append(0.0, &Fact::ControllerStarted(started()));
    let mut watches: BTreeMap<String, KindWatch> = BTreeMap::new();
    for line in lines {
        let mut line: Line = serde_json::from_str(&line.expect("recordings are text")).expect("each line is an event");
        let Some(info) = line.gvk.rsplit_once('/').and_then(|(version, kind)| KindInfo::find(version, kind)) else {
            continue;
        };
        if line.gvk == "v1/Pod" {
            inject(&mut line.object);
        }
        let watch = watches.entry(line.gvk).or_insert_with(|| KindWatch::new(*info));
        let seen = match line.event.as_str() {
            "RELIST-BEGIN" => Seen::ListBegin,
            "RELIST-END" => Seen::ListEnd,
            "ADDED" if watch.is_listing() => Seen::Listed(line.object),
            "ADDED" | "MODIFIED" => Seen::Applied(line.object),
            "DELETED" => Seen::Deleted(line.object),
            "BOOKMARK" => continue,
            other => panic!("{other} is no event of a recording"),
        };
        watch.see(seen).iter().for_each(|fact| recorded.append(line.t_ms, fact));
    }
    recorded
}

impl Recorded {
    /// The last record that was there so many milliseconds after the beginning.
    pub fn at_ms(&self, ms: u64) -> Seq {
        let time = Timestamp(START_US + ms * 1000);
        let there = self.records.partition_point(|record| record.time <= time);
        there.checked_sub(1).map_or(Seq::ZERO, |last| self.records[last].seq)
    }

    /// The records up to a seq.
    pub fn upto(&self, seq: Seq) -> &[Record] {
        &self.records[..self.records.partition_point(|record| record.seq <= seq)]
    }

    fn append(&mut self, t_ms: f64, fact: &Fact) {
        let seq = Seq(self.records.len() as u64 + 1);
        let time = Timestamp(START_US + (t_ms * 1000.0) as u64);
        self.records.push(Record { seq, time, entry: fact.to_entry(TraceContext::default()) });
    }
}

/// The pretended injector of the recordings gave pods the label of a proxy, and no proxy.
fn inject(pod: &mut Value) {
    if pod.pointer("/metadata/labels/fsm-proxy-uuid").is_none() {
        return;
    }
    if let Some(spec) = pod.pointer_mut("/spec").and_then(Value::as_object_mut) {
        let sidecar = json!({ "name": "sidecar", "image": "flomesh/fsm-proxy:latest", "restartPolicy": "Always" });
        spec.insert("initContainers".into(), json!([sidecar]));
    }
}

fn started() -> ControllerStarted {
    ControllerStarted {
        version: "0.1.0".into(),
        mesh_name: "fsm".into(),
        mesh_namespace: "fsm-system".into(),
        mesh_config: "fsm-mesh-config".into(),
        trust_domain: "cluster.local".into(),
        trust_bundle_pem: "the root certificate\n".into(),
        ..ControllerStarted::default()
    }
}
