//! Some hundred seeds of the simulator. Many more:
//! `cargo run --release -p fsm-replay-tests --example simulate -- --seeds 10000`

use std::ops::Range;

use fsm_replay_tests::simulator::{Story, simulate};

/// Steps of a seed.
const STEPS: u32 = 120;

fn run(seeds: Range<u64>) {
    let mut story = Story::default();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        match simulate(seed, STEPS) {
            Ok(told) => story += told,
            Err(violation) => panic!("{violation}"),
        }
    }
    // Everything that is meant to happen does happen.
    for (what, times) in story.counts() {
        assert!(times >= count / 4, "only {times} {what} in {count} seeds");
    }
}

#[test]
fn what_must_always_hold_holds_in_the_first_seeds() {
    run(0..50);
}

#[test]
fn what_must_always_hold_holds_in_the_second_seeds() {
    run(50..100);
}

#[test]
fn what_must_always_hold_holds_in_the_third_seeds() {
    run(100..150);
}

#[test]
fn what_must_always_hold_holds_in_the_last_seeds() {
    run(150..200);
}

#[test]
fn a_seed_is_the_same_story_every_time() {
    for seed in [77, 4_096] {
        assert_eq!(simulate(seed, STEPS), simulate(seed, STEPS));
    }
}
