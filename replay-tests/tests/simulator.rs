//! Some hundred seeds of the simulator. Many more:
//! `cargo run --release -p fsm-replay-tests --example simulate -- --seeds 10000`

use fsm_replay_tests::simulator::{Story, simulate};

/// How many seeds, and steps in each.
const SEEDS: u64 = 200;
const STEPS: u32 = 250;

#[test]
fn what_must_always_hold_holds_in_every_seed() {
    let mut story = Story::default();
    for seed in 0..SEEDS {
        match simulate(seed, STEPS) {
            Ok(told) => story += told,
            Err(violation) => panic!("{violation}"),
        }
    }
    // Everything that is meant to happen does happen.
    let Story {
        records,
        versions_acknowledged,
        relists,
        crashes,
        disk_faults,
        rebuilt_actors,
        snapshots,
        compactions,
        refusals,
        reconnects,
    } = story;
    for (what, times) in [
        ("records", records),
        ("acknowledgements", versions_acknowledged),
        ("relists", relists),
        ("crashes", crashes),
        ("disk faults", disk_faults),
        ("rebuilt actors", rebuilt_actors),
        ("snapshots", snapshots),
        ("compactions", compactions),
        ("refusals", refusals),
        ("reconnects", reconnects),
    ] {
        assert!(times >= SEEDS / 2, "only {times} {what} in {SEEDS} seeds: {story:?}");
    }
}

#[test]
fn a_seed_is_the_same_story_every_time() {
    for seed in [1, 77, 4_096] {
        assert_eq!(simulate(seed, STEPS), simulate(seed, STEPS));
    }
}
