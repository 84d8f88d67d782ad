//! Reading the recorded cases.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::Value;

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

/// All cases, in the order of their names within their groups.
pub fn cases() -> Vec<Value> {
    let file = File::open(directory().join("cases.jsonl.zst")).expect("the recordings are there");
    let unpacked = zstd::Decoder::new(file).expect("they are packed with zstd");
    let lines = BufReader::new(unpacked).lines();
    lines.map(|line| serde_json::from_str(&line.expect("they can be unpacked")).expect("a case is JSON")).collect()
}

/// One case by its name.
pub fn case(name: &str) -> Value {
    cases().into_iter().find(|case| super::name(case) == name).expect("the case is among the recordings")
}
