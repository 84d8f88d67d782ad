//! Writes a recording as a log's directory, with acknowledgements and digests, to try `fsm log` and `fsm replay` on:
//! `cargo run -p fsm-replay-tests --example write_log -- bookstore DIR`

use fsm_replay_tests::{recorded, with_proofs};
use fsm_store::{EventLog, Options, SledLog};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [recording, dir] = arguments.as_slice() else {
        eprintln!("usage: write_log RECORDING DIR");
        std::process::exit(2);
    };
    let log = SledLog::open(dir, Options::default()).expect("the directory can become a log");
    let batches = with_proofs(&recorded(recording).records, &[1, 3, 11, 2, 24]);
    for batch in batches.chunks(13) {
        // Dropping the log waits until all of it is committed.
        drop(log.append(batch.iter().map(|record| record.entry.clone()).collect()));
    }
}
