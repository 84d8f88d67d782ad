//! The same log gives the same bytes: at any batch size, in any process.

use std::collections::BTreeMap;
use std::process::Command;

use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;
use fsm_actors::publish::Followed;
use fsm_proxy_config::{ConfigSet, Digest};
use fsm_replay_tests::recorded;
use fsm_store::{Record, Seq};
use proptest::prelude::*;

const RECORDINGS: [&str; 2] = ["bookstore", "relist"];

/// The digests of all state machines and of all proxies' configurations.
pub fn digests(core: &Core) -> BTreeMap<String, Digest> {
    let configs = core.proxies().map(|proxy| (proxy.to_string(), core.config_of(proxy).unwrap().digest()));
    core.digests().into_iter().chain(configs).collect()
}

/// Applies the records one at a time, and gives the digests after the seqs that are asked for.
fn one_at_a_time(records: &[Record], at: &[Seq]) -> Vec<BTreeMap<String, Digest>> {
    let mut core = Core::default();
    let mut found = Vec::new();
    for record in records {
        core.apply_one(record);
        if at.contains(&record.seq) {
            found.push(digests(&core));
        }
    }
    found
}

fn text(digests: &BTreeMap<String, Digest>) -> String {
    digests.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn batches_of_any_size_lead_to_the_same_states_and_configurations(
        sizes in prop::collection::vec(1..90_usize, 1..40),
        recording in prop::sample::select(&RECORDINGS[..]),
    ) {
        let records = recorded(recording).records;
        let mut core = Core::new(Followed::Everybody);
        let mut told: BTreeMap<ObjectName, ConfigSet> = BTreeMap::new();
        let mut rest = &records[..];
        let mut seqs = Vec::new();
        let mut states = Vec::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() { break; }
            let (batch, after) = rest.split_at((*size).min(rest.len()));
            rest = after;
            for update in core.apply(batch) {
                told.entry(update.proxy).or_default().apply(&update.update);
            }
            told.retain(|proxy, _| core.config_of(proxy).is_some());
            // What proxies were told in deltas is what a proxy that comes new would be told.
            for proxy in core.proxies() {
                let whole = core.config_of(proxy).unwrap();
                let digest = told.get(proxy).map(ConfigSet::digest);
                prop_assert_eq!(digest, Some(whole.digest()), "{} at seq {}", proxy, core.seq());
            }
            if seqs.len() < 12 {
                seqs.push(core.seq());
                states.push(digests(&core));
            }
        }
        seqs.push(core.seq());
        states.push(digests(&core));
        seqs.dedup();
        states.truncate(seqs.len());
        prop_assert_eq!(states, one_at_a_time(&records, &seqs));
    }
}

fn checkpoints(recording: &str) -> String {
    let records = recorded(recording).records;
    let seqs: Vec<Seq> = (1..=8).map(|eighth| Seq((records.len() * eighth / 8) as u64)).collect();
    let states = one_at_a_time(&records, &seqs);
    states.iter().zip(seqs).map(|(state, seq)| format!("{recording} at seq {seq}\n{}", text(state))).collect()
}

/// Set for the other process, which is this test once more.
const OTHER_PROCESS: &str = "FSM_PRINTS_DIGESTS";

#[test]
fn another_process_in_another_environment_comes_to_the_same() {
    if std::env::var_os(OTHER_PROCESS).is_some() {
        return RECORDINGS.iter().for_each(|recording| print!("\n{}", checkpoints(recording)));
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["determinism::another_process_in_another_environment_comes_to_the_same", "--exact", "--nocapture"])
        .env(OTHER_PROCESS, "1")
        .current_dir(&elsewhere)
        .env("TZ", "Pacific/Chatham")
        .env("LANG", "tr_TR.UTF-8")
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    for recording in RECORDINGS {
        let expected = checkpoints(recording);
        assert!(expected.contains("catalog"), "{expected}");
        assert!(printed.contains(&expected), "expected\n{expected}\nthe other process printed\n{printed}");
    }
}
