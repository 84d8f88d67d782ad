//! What two proxies of the bookstore are told, to the last field.

use std::fmt::Write;

use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;
use fsm_replay_tests::recorded;
use serde_json::Value;

/// What the first proxy whose name begins like this was told, so many milliseconds after the beginning.
fn told(proxy: &str, ms: u64) -> Value {
    let history = recorded("bookstore");
    let mut core = Core::default();
    core.apply(history.upto(history.at_ms(ms)));
    let proxies: Vec<ObjectName> = core.proxies().cloned().collect();
    let proxy = proxies
        .iter()
        .find(|name| name.to_string().starts_with(proxy))
        .unwrap_or_else(|| panic!("no proxy {proxy} among {proxies:?}"));
    core.config_of(proxy).unwrap().to_json()
}

/// All is as the demo wants it: split 50/50, bookbuyer and bookthief are allowed.
const SPLIT_IN_HALF: u64 = 16_500;
/// Everything has happened, and nothing is deleted yet.
const AT_THE_END: u64 = 99_000;

#[test]
fn the_buyer_while_traffic_is_split_in_half() {
    insta::assert_json_snapshot!(told("bookbuyer/", SPLIT_IN_HALF));
}

#[test]
fn the_buyer_at_the_end() {
    insta::assert_json_snapshot!(told("bookbuyer/", AT_THE_END));
}

#[test]
fn the_store_at_the_end() {
    insta::assert_json_snapshot!(told("bookstore/bookstore-v2", AT_THE_END));
}

/// What every state machine came to, an eighth of the history at a time.
fn digests(recording: &str) -> String {
    let records = recorded(recording).records;
    let mut text = String::new();
    let mut core = Core::default();
    for eighth in records.chunks(records.len().div_ceil(8)) {
        core.apply(eighth);
        writeln!(text, "seq {}, {} proxies", core.seq(), core.proxies().count()).unwrap();
        for (machine, digest) in core.digests() {
            writeln!(text, "  {machine:10} {digest}").unwrap();
        }
    }
    text
}

#[test]
fn the_bookstore_comes_to_these_states() {
    insta::assert_snapshot!(digests("bookstore"));
}

#[test]
fn the_watcher_that_was_cut_off_comes_to_these_states() {
    insta::assert_snapshot!(digests("relist"));
}

#[test]
fn sixty_services_under_churn_come_to_these_states() {
    insta::assert_snapshot!(digests("churn"));
}
