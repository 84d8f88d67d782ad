use std::collections::BTreeMap;

use fsm_proxy_config::resource::Resource;
use fsm_proxy_config::{Kind, Snapshot, proto};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::fact::{Ack, CertificateIssued, ProxyFact, ProxyPhase, RelistPhase};
use crate::fixture::*;
use fsm_store::Timestamp;

fn core_of(history: &History) -> Core {
    let mut core = Core::new(Followed::Everybody);
    core.apply(&history.0);
    core
}

/// The names of the proxies that a record has something to tell.
fn told(core: &mut Core, history: &mut History, object: serde_json::Value) -> Vec<String> {
    history.apply(object);
    let updates = core.apply(&history.0[history.0.len() - 1..]);
    updates.iter().map(|update| update.proxy.to_string()).collect()
}

#[test]
fn the_buyer_is_told_of_the_store_and_its_split() {
    let config = core_of(&History::bookstore()).config_of(&name("bookbuyer/bookbuyer-0")).unwrap();
    insta::assert_snapshot!(text(&config));
    Snapshot::compile(config).unwrap();
}

#[test]
fn the_store_is_told_who_may_call_it() {
    let config = core_of(&History::bookstore()).config_of(&name("bookstore/v1-0")).unwrap();
    insta::assert_snapshot!(text(&config));
    Snapshot::compile(config).unwrap();
}

#[test]
fn the_thief_is_told_of_nothing_but_itself() {
    let config = core_of(&History::bookstore()).config_of(&name("bookthief/bookthief-0")).unwrap();
    assert_eq!(names(&config), ["Settings/settings", "Workload/workload", "TrustBundle/trust"]);
}

#[test]
fn in_permissive_mode_everyone_is_told_of_every_service() {
    let mut history = History::bookstore();
    history.apply(mesh_config(true));
    let config = core_of(&history).config_of(&name("bookthief/bookthief-0")).unwrap();
    assert_eq!(config.resources.keys().filter(|name| name.kind == Kind::Service).count(), 3);
    assert_eq!(config.resources.keys().filter(|name| name.kind == Kind::Endpoints).count(), 3);
    assert_eq!(config.resources.keys().filter(|name| name.kind == Kind::Split).count(), 1);

    history.apply(mesh_config(false));
    let config = core_of(&history).config_of(&name("bookthief/bookthief-0")).unwrap();
    assert_eq!(names(&config), ["Settings/settings", "Workload/workload", "TrustBundle/trust"]);
}

#[test]
fn a_change_touches_only_the_proxies_that_it_concerns() {
    let mut history = History::bookstore();
    let mut core = core_of(&history);
    // Weights: the buyer only.
    assert_eq!(told(&mut core, &mut history, split(50, 50)), ["bookbuyer/bookbuyer-0"]);
    // The same again: nobody.
    assert!(told(&mut core, &mut history, split(50, 50)).is_empty());
    // The thief gets access to v1: the thief, and the server whose policy it is.
    let allowed = target("v1", "bookstore-v1", &["bookbuyer", "bookthief"]);
    assert_eq!(told(&mut core, &mut history, allowed), ["bookstore/v1-0", "bookthief/bookthief-0"]);
    // A pod becomes not ready: those who call it.
    let unready = slice("bookstore", "bookstore-v2", &[("v2-0", "10.0.0.4", false)]);
    assert_eq!(told(&mut core, &mut history, unready), ["bookbuyer/bookbuyer-0"]);
    // A pod's heartbeat: nobody.
    let mut heartbeat = pod("bookstore", "v2-0", "bookstore-v2", "10.0.0.4");
    heartbeat["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    assert!(told(&mut core, &mut history, heartbeat).is_empty());
    // A service that nobody of the mesh may call, in a namespace that isn't of the mesh: nobody.
    assert!(told(&mut core, &mut history, service("default", "kubernetes", "10.96.0.9")).is_empty());
}

#[test]
fn losing_access_takes_the_service_away() {
    let mut history = History::bookstore();
    let mut core = core_of(&history);
    history.delete(target("v1", "bookstore-v1", &[]));
    history.delete(target("v2", "bookstore-v2", &[]));
    let updates = core.apply(&history.0[history.0.len() - 2..]);
    let buyer = updates.iter().find(|update| update.proxy == name("bookbuyer/bookbuyer-0")).unwrap();
    let removed: Vec<String> = buyer.update.removed.iter().map(ToString::to_string).collect();
    assert_eq!(
        removed,
        [
            "Service/bookstore/bookstore",
            "Service/bookstore/bookstore-v1",
            "Service/bookstore/bookstore-v2",
            "Endpoints/bookstore/bookstore-1",
            "Endpoints/bookstore/bookstore-v1-1",
            "Endpoints/bookstore/bookstore-v2-1",
            "Split/bookstore/bookstore-split",
        ]
    );
    assert!(buyer.update.changed.is_empty());
}

#[test]
fn what_a_relist_does_not_name_is_gone() {
    let mut history = History::bookstore();
    history.relist("v1/Service", RelistPhase::Begin);
    history.apply(service("bookstore", "bookstore", "10.96.0.1"));
    history.apply(service("bookstore", "bookstore-v1", "10.96.0.2"));
    // Until the list is complete, nothing is missing.
    let service_count = |history: &History| {
        let config = core_of(history).config_of(&name("bookbuyer/bookbuyer-0")).unwrap();
        config.resources.keys().filter(|name| name.kind == Kind::Service).count()
    };
    assert_eq!(service_count(&history), 3);
    history.relist("v1/Service", RelistPhase::End);
    assert_eq!(service_count(&history), 2);
    // A second end, as after a list that was broken off, means nothing.
    history.relist("v1/Service", RelistPhase::End);
    assert_eq!(service_count(&history), 2);
}

#[test]
fn an_invalid_object_counts_as_absent_and_is_named() {
    let mut history = History::bookstore();
    let mut broken = target("v1", "bookstore-v1", &["bookbuyer"]);
    broken["spec"]["destination"]["kind"] = json!("Group");
    history.apply(broken);
    let core = core_of(&history);
    let config = core.config_of(&name("bookstore/v1-0")).unwrap();
    assert!(!config.resources.keys().any(|name| name.kind == Kind::InboundPolicy));
    let (key, reason) = core.catalog().unusable().iter().next().unwrap();
    assert_eq!(key.1, name("bookstore/v1"));
    assert!(reason.contains("spec.destination.kind"), "{reason}");
}

#[test]
fn a_mesh_config_that_is_not_valid_leaves_the_last_good_one_in_force() {
    let mut history = History::bookstore();
    history.apply(mesh_config(true));
    let mut broken = mesh_config(false);
    broken["spec"]["sidecar"] = json!({"sidecarTimeout": -1});
    history.apply(broken);
    let core = core_of(&history);
    assert!(core.catalog().mesh().is_permissive());
    assert_eq!(core.catalog().unusable().len(), 1);
}

#[test]
fn an_endpoint_waits_for_its_pod() {
    let mut history = History::started();
    history.apply(namespace_of_mesh("bookstore"));
    history.apply(mesh_config(true));
    history.apply(service("bookstore", "bookstore", "10.96.0.1"));
    history.apply(slice("bookstore", "bookstore", &[("v1-0", "10.0.0.3", true)]));
    history.apply(pod("bookstore", "other", "other", "10.0.0.9"));
    let endpoints = |history: &History| {
        let config = core_of(history).config_of(&name("bookstore/other")).unwrap();
        let (resource, entry) = config.resources.iter().find(|(name, _)| name.kind == Kind::Endpoints).unwrap();
        match Resource::decode(resource.kind, &entry.bytes).unwrap() {
            Resource::Endpoints(message) => message.endpoints,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(endpoints(&history), []);
    history.apply(pod("bookstore", "v1-0", "bookstore-v1", "10.0.0.3"));
    let expected = proto::Endpoint {
        address: "10.0.0.3".to_owned(),
        identity: "spiffe://cluster.local/ns/bookstore/sa/bookstore-v1".to_owned(),
        pod: "bookstore/v1-0".to_owned(),
        zone: "z1".to_owned(),
        weight: None,
    };
    assert_eq!(endpoints(&history), std::slice::from_ref(&expected));
    let mut without_proxy = pod("bookstore", "v1-0", "bookstore-v1", "10.0.0.3");
    without_proxy["spec"]["initContainers"] = json!([]);
    history.apply(without_proxy);
    assert_eq!(endpoints(&history), [proto::Endpoint { identity: String::new(), ..expected }]);
}

#[test]
fn answers_of_proxies_change_nothing_that_they_are_told() {
    let mut history = History::bookstore();
    let mut core = core_of(&history);
    let before = core.digests();
    let proxy = name("bookbuyer/bookbuyer-0");
    let digest = core.config_of(&proxy).unwrap().digest();
    history.push(&Fact::Proxy(ProxyFact {
        phase: ProxyPhase::Connected,
        proxy: proxy.clone(),
        identity: identity("bookbuyer/bookbuyer"),
        instance: "1-0".to_owned(),
        version: "0.1.0".to_owned(),
        running_seq: 0,
    }));
    history.push(&Fact::Ack(Ack { proxy: proxy.clone(), seq: core.seq(), digest }));
    assert!(core.apply(&history.0[history.0.len() - 2..]).is_empty());
    assert_eq!(core.digests(), before);
    let status = core.catalog().proxies().get(&proxy).unwrap();
    assert!(status.is_connected());
    assert_eq!(status.acked.unwrap().1, digest);
}

#[test]
fn certificates_are_known_until_their_pod_is_gone() {
    let mut history = History::bookstore();
    history.push(&Fact::CertificateIssued(CertificateIssued {
        identity: identity("bookbuyer/bookbuyer"),
        pod: Some(name("bookbuyer/bookbuyer-0")),
        serial: "01".to_owned(),
        fingerprint: "ab".repeat(32),
        not_after: Timestamp(1),
    }));
    assert_eq!(core_of(&history).certs().in_use().count(), 1);
    history.delete(pod("bookbuyer", "bookbuyer-0", "bookbuyer", "10.0.0.1"));
    let core = core_of(&history);
    assert_eq!((core.certs().in_use().count(), core.certs().issued_total()), (0, 1));
    assert!(core.config_of(&name("bookbuyer/bookbuyer-0")).is_none());
}

/// One of many small histories: objects come, change and go, proxies answer, lists break off.
fn random_fact() -> impl Strategy<Value = Fact> {
    let pods = (0u8..4, 0u8..2, any::<bool>()).prop_map(|(index, account, there)| {
        let object =
            pod("bookstore", &format!("v{index}"), &format!("bookstore-v{account}"), &format!("10.0.1.{index}"));
        if there { applied(object) } else { Fact::deleted("v1/Pod", &object) }
    });
    let slices = (0u8..3, prop::collection::btree_map(0u8..4, any::<bool>(), 0..4)).prop_map(|(service, pods)| {
        let pods: Vec<(String, String, bool)> =
            pods.into_iter().map(|(pod, ready)| (format!("v{pod}"), format!("10.0.1.{pod}"), ready)).collect();
        let pods: Vec<(&str, &str, bool)> =
            pods.iter().map(|(pod, ip, ready)| (pod.as_str(), ip.as_str(), *ready)).collect();
        applied(slice("bookstore", ["bookstore", "bookstore-v1", "bookstore-v2"][usize::from(service)], &pods))
    });
    let targets =
        (0u8..2, prop::collection::vec(0usize..2, 0..3), any::<bool>()).prop_map(|(version, sources, there)| {
            let sources: Vec<&str> = sources.into_iter().map(|index| ["bookbuyer", "bookthief"][index]).collect();
            let object = target(&format!("t{version}"), &format!("bookstore-v{version}"), &sources);
            if there { applied(object) } else { Fact::deleted("access.smi-spec.io/v1alpha3/TrafficTarget", &object) }
        });
    let splits = (0u32..3, 0u32..3).prop_map(|(v1, v2)| applied(split(v1, v2)));
    let namespaces = any::<bool>().prop_map(|monitored| {
        let mut object = namespace_of_mesh("bookstore");
        if !monitored {
            object["metadata"]["labels"] = json!({});
        }
        applied(object)
    });
    let services = (0usize..3, any::<bool>()).prop_map(|(index, there)| {
        let object =
            service("bookstore", ["bookstore", "bookstore-v1", "bookstore-v2"][index], &format!("10.96.0.{index}"));
        if there { applied(object) } else { Fact::deleted("v1/Service", &object) }
    });
    let relists = (any::<bool>(), 0usize..3).prop_map(|(begin, kind)| {
        let gvk = ["v1/Pod", "v1/Service", "discovery.k8s.io/v1/EndpointSlice"][kind].to_owned();
        let phase = if begin { RelistPhase::Begin } else { RelistPhase::End };
        Fact::Relist(crate::fact::Relist { gvk, phase })
    });
    let modes = any::<bool>().prop_map(|permissive| applied(mesh_config(permissive)));
    prop_oneof![4 => pods, 4 => slices, 3 => targets, 2 => splits, 1 => namespaces, 2 => services, 1 => relists, 1 => modes,
        1 => Just(started())]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The same log gives the same states, at any batch size; and following the updates leads to the same configurations as
    /// asking for them.
    #[test]
    fn states_do_not_depend_on_batches(
        facts in prop::collection::vec(random_fact(), 1..60),
        sizes in prop::collection::vec(1usize..9, 1..20),
    ) {
        let mut history = History::bookstore();
        for fact in &facts {
            history.push(fact);
        }
        let mut one_by_one = Core::new(Followed::Nobody);
        for record in &history.0 {
            one_by_one.apply(std::slice::from_ref(record));
        }
        let mut batched = Core::new(Followed::Everybody);
        let mut followed: BTreeMap<ObjectName, ConfigSet> = BTreeMap::new();
        let mut rest = &history.0[..];
        for size in sizes.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (batch, later) = rest.split_at(size.min(rest.len()));
            rest = later;
            for update in batched.apply(batch) {
                prop_assert!(!update.update.changed.is_empty() || !update.update.removed.is_empty());
                followed.entry(update.proxy).or_default().apply(&update.update);
            }
            // Who left, or left and came back, begins anew: its stream was closed.
            for proxy in batched.publisher.take_left() {
                match batched.config_of(&proxy) {
                    Some(config) => followed.insert(proxy, config),
                    None => followed.remove(&proxy),
                };
            }
            followed.retain(|proxy, _| batched.config_of(proxy).is_some());
        }
        prop_assert_eq!(one_by_one.digests(), batched.digests());
        for proxy in batched.proxies() {
            let asked = batched.config_of(proxy).unwrap();
            prop_assert_eq!(&followed[proxy].resources, &asked.resources, "{}", proxy);
            prop_assert_eq!(Some(asked), one_by_one.config_of(proxy));
        }
    }

    /// Incremental work comes to what a computation from nothing comes to: a controller that sees only the final objects tells every
    /// proxy the same.
    #[test]
    fn nothing_is_left_over_from_earlier_objects(facts in prop::collection::vec(random_fact(), 1..60)) {
        let mut history = History::bookstore();
        for fact in &facts {
            history.push(fact);
        }
        let core = core_of(&history);
        let mut fresh = History::started();
        for ((gvk, _), object) in core.catalog().objects().iter() {
            let object: serde_json::Value = serde_json::from_str(object.json.get()).unwrap();
            fresh.push(&Fact::applied(gvk, &object));
        }
        let fresh = core_of(&fresh);
        prop_assert_eq!(core.proxies().collect::<Vec<_>>(), fresh.proxies().collect::<Vec<_>>());
        for proxy in core.proxies() {
            let (one, other) = (core.config_of(proxy).unwrap(), fresh.config_of(proxy).unwrap());
            prop_assert_eq!(names(&one), names(&other), "{}", proxy);
            prop_assert_eq!(one.digest(), other.digest(), "{}", proxy);
        }
    }
}
