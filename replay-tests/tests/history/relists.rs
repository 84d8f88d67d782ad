//! A watcher that was cut off comes to the same as one that was not.

use std::collections::BTreeMap;

use fsm_actors::Core;
use fsm_proxy_config::ResourceName;
use fsm_replay_tests::recorded;

/// Four seconds after the end of each cut; the recordings share a clock.
const AFTER_CUTS: [u64; 3] = [17_559, 229_213, 328_320];

/// What there is: every object's uid and version, and what every proxy is told (not since when).
type State = (BTreeMap<String, String>, BTreeMap<String, BTreeMap<ResourceName, Vec<u8>>>);

fn state(core: &Core) -> State {
    let objects = core.catalog().objects().iter().map(|((gvk, name), object)| {
        let object: serde_json::Value = serde_json::from_str(object.json.get()).unwrap();
        let identity = format!("{} {}", object["metadata"]["uid"], object["metadata"]["resourceVersion"]);
        (format!("{gvk} {name}"), identity)
    });
    let proxies = core.proxies().map(|proxy| {
        let config = core.config_of(proxy).unwrap();
        let told = config.resources.into_iter().map(|(name, entry)| (name, entry.bytes.to_vec()));
        (proxy.to_string(), told.collect())
    });
    (objects.collect(), proxies.collect())
}

#[test]
fn after_each_cut_both_watchers_know_the_same() {
    let (cut_off, truth) = (recorded("relist"), recorded("relist-truth"));
    let (mut one, mut other) = (Core::default(), Core::default());
    for moment in AFTER_CUTS {
        for (core, history) in [(&mut one, &cut_off), (&mut other, &truth)] {
            let (from, upto) = (core.seq(), history.at_ms(moment));
            core.apply(&history.upto(upto)[from.0 as usize..]);
        }
        let (one, other) = (state(&one), state(&other));
        assert!(!other.0.is_empty());
        assert_eq!(one, other, "{moment} ms after the beginning");
    }
}
