use bytes::Bytes;
use fsm_proxy_config::{Entry, Kind};

use super::*;

fn resource(text: &str) -> ResourceName {
    ResourceName::new(Kind::Service, text)
}

fn version(seq: u64, changed: &[&str], removed: &[&str]) -> Version {
    let entry = |name: &&str| (resource(name), Entry { version: seq, bytes: Bytes::from(format!("{name}@{seq}")) });
    let update = Update {
        seq,
        changed: changed.iter().map(entry).collect(),
        removed: removed.iter().map(|name| resource(name)).collect(),
    };
    Version { update, trace: TraceContext::default(), expected: None }
}

/// `seq: +changed@version … -removed …`
fn show(response: Option<DeltaDiscoveryResponse>) -> String {
    let Some(response) = response else { return "nothing".to_owned() };
    let changed =
        response.resources.iter().map(|one| format!(" +{}@{}", one.name.trim_start_matches("Service/"), one.version));
    let removed = response.removed_resources.iter().map(|name| format!(" -{}", name.trim_start_matches("Service/")));
    format!("{}:{}", response.nonce, changed.chain(removed).collect::<String>())
}

#[test]
fn one_version_is_on_its_way_and_later_ones_are_merged() {
    let mut delivery = Delivery::default();
    assert_eq!(show(delivery.offer(version(5, &["a", "b"], &[]))), "5: +a@5 +b@5");
    assert_eq!(show(delivery.offer(version(6, &["a"], &["b"]))), "nothing");
    assert_eq!(show(delivery.offer(version(9, &["b", "c"], &["a"]))), "nothing");
    assert_eq!(delivery.acked("4", None), Answer::Stale);
    assert_eq!(delivery.acked("5", None), Answer::Acked { seq: Seq(5) });
    assert_eq!(show(delivery.send()), "9: +b@9 +c@9 -a");
    assert_eq!(delivery.acked("9", None), Answer::Acked { seq: Seq(9) });
    assert_eq!(show(delivery.send()), "nothing");
}

#[test]
fn what_was_refused_comes_again_with_the_next_change_only() {
    let mut delivery = Delivery::default();
    delivery.offer(version(5, &["a"], &["x"]));
    assert_eq!(delivery.nacked("5"), Answer::Nacked { seq: Seq(5) });
    assert_eq!(show(delivery.send()), "nothing");
    assert_eq!(show(delivery.offer(version(7, &["b"], &[]))), "7: +a@5 +b@7 -x");
}

#[test]
fn a_change_that_waits_while_a_version_is_refused_goes_out_at_once() {
    let mut delivery = Delivery::default();
    delivery.offer(version(5, &["a"], &[]));
    delivery.offer(version(6, &["a"], &[]));
    delivery.nacked("5");
    assert_eq!(show(delivery.send()), "6: +a@6");
}

#[test]
fn a_stream_begins_with_what_the_proxy_does_not_hold() {
    let mut config = ConfigSet { seq: 20, ..ConfigSet::default() };
    for (name, version) in [("a", 3), ("b", 12), ("c", 15)] {
        config.resources.insert(resource(name), Entry { version, bytes: Bytes::from_static(b"x") });
    }
    let held: BTreeMap<String, String> = [("Service/a", "3"), ("Service/b", "4"), ("Service/gone", "2")]
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .into();
    let mut delivery = Delivery::default();
    assert_eq!(show(delivery.offer(Delivery::first(&config, &held, 10))), "20: +b@12 +c@15 -gone");
    // From another log, the same numbers mean something else.
    let mut delivery = Delivery::default();
    assert_eq!(show(delivery.offer(Delivery::first(&config, &held, 21))), "20: +a@3 +b@12 +c@15 -gone");
}

#[test]
fn a_proxy_that_runs_something_else_is_noticed() {
    let config = ConfigSet { seq: 20, ..ConfigSet::default() };
    let mut delivery = Delivery::default();
    delivery.offer(Delivery::first(&config, &BTreeMap::new(), 0));
    let expected = config.digest();
    assert_eq!(delivery.acked("20", Some(Digest([1; 32]))), Answer::Differs { seq: Seq(20), expected });
    delivery.offer(Delivery::first(&config, &BTreeMap::new(), u64::MAX));
    assert_eq!(delivery.acked("20", Some(expected)), Answer::Acked { seq: Seq(20) });
}
