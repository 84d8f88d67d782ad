//! Writes each record of some recordings as a file of its own, for the training of the log's dictionary:
//! `cargo run -p fsm-replay-tests --example samples -- DIR RECORDING…` (see `store/src/frame/dictionary/README.md`)

use std::fs;
use std::path::Path;

use fsm_replay_tests::{recorded, with_proofs};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, recordings @ ..] = arguments.as_slice() else {
        anyhow::bail!("usage: samples DIR RECORDING…");
    };
    fs::create_dir_all(dir)?;
    for recording in recordings {
        let records = with_proofs(&recorded(recording).records, &[1, 3, 11, 2, 24]);
        for (place, record) in records.iter().enumerate() {
            let entry = &record.entry;
            let sample = [entry.topic.as_bytes(), entry.key.as_bytes(), &entry.body[..]].concat();
            fs::write(Path::new(dir).join(format!("{recording}-{place:05}")), sample)?;
        }
    }
    Ok(())
}
