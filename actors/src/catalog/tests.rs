use serde_json::json;

use super::*;
use crate::fixture::*;

fn catalog(history: &History) -> Catalog {
    let mut catalog = Catalog::default();
    for record in &history.0 {
        catalog.apply(record.seq, &Fact::parse(&record.entry).unwrap());
    }
    catalog
}

#[test]
fn a_version_stays_as_it_is_while_the_catalog_moves_on() {
    let mut history = History::bookstore();
    let mut moving = catalog(&history);
    let version = moving.clone();
    let digest = version.digest();
    history.delete(service("bookstore", "bookstore", ""));
    let record = history.0.last().unwrap();
    let delta = moving.apply(record.seq, &Fact::parse(&record.entry).unwrap());
    assert_eq!(delta.services.keys().collect::<Vec<_>>(), [&name("bookstore/bookstore")]);
    assert!(moving.services().get(&name("bookstore/bookstore")).is_none());
    assert!(version.services().get(&name("bookstore/bookstore")).is_some());
    assert_eq!(version.digest(), digest);
    assert_ne!(moving.digest(), digest);
}

#[test]
fn what_is_not_read_is_no_change() {
    let mut history = History::bookstore();
    let mut catalog = catalog(&history);
    let mut managed = service("bookstore", "bookstore", "10.96.0.1");
    managed["metadata"]["resourceVersion"] = json!("99");
    managed["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
    history.apply(managed);
    history.apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "a", "name": "b"}}));
    for record in &history.0[history.0.len() - 2..] {
        assert!(catalog.apply(record.seq, &Fact::parse(&record.entry).unwrap()).is_empty());
    }
    assert!(catalog.objects().contains_key(&("apps/v1/Deployment".into(), name("a/b"))));
}

#[test]
fn both_versions_of_a_kind_are_one() {
    let mut history = History::bookstore();
    let mut older = split(7, 3);
    older["apiVersion"] = json!("split.smi-spec.io/v1alpha2");
    history.apply(older);
    let catalog = catalog(&history);
    assert_eq!(catalog.splits().len(), 1);
    let split = catalog.splits().values().next().unwrap();
    assert_eq!(split.backends.iter().map(|(_, weight)| *weight).collect::<Vec<_>>(), [7, 3]);
}

#[test]
fn who_may_be_told_follows_from_pods_and_targets() {
    let mut history = History::bookstore();
    let audience = |history: &History, service: &str| catalog(history).audience_of_service(&name(service));
    let buyer = || Audience::accounts([name("bookbuyer/bookbuyer")]);
    assert_eq!(audience(&history, "bookstore/bookstore-v1"), buyer());
    // Another pod behind the service, that others may call.
    history.apply(pod("bookstore", "v3-0", "bookstore-v3", "10.0.0.6"));
    history.apply(target("v3", "bookstore-v3", &["bookthief"]));
    assert_eq!(audience(&history, "bookstore/bookstore-v1"), buyer());
    history.apply(slice("bookstore", "bookstore-v1", &[("v1-0", "10.0.0.3", true), ("v3-0", "10.0.0.6", false)]));
    let both = Audience::accounts([name("bookbuyer/bookbuyer"), name("bookthief/bookthief")]);
    assert_eq!(audience(&history, "bookstore/bookstore-v1"), both);
    assert_eq!(audience(&history, "bookstore/bookstore"), both);
    assert_eq!(audience(&history, "bookstore/bookstore-v2"), buyer());
    history.delete(pod("bookstore", "v3-0", "bookstore-v3", ""));
    assert_eq!(audience(&history, "bookstore/bookstore-v1"), buyer());
}

#[test]
fn a_list_that_is_broken_off_and_begins_again_loses_nothing() {
    let mut history = History::bookstore();
    history.relist("v1/Namespace", RelistPhase::Begin);
    history.apply(namespace_of_mesh("bookstore"));
    history.relist("v1/Namespace", RelistPhase::Begin);
    for namespace in ["bookstore", "bookbuyer"] {
        history.apply(namespace_of_mesh(namespace));
    }
    assert_eq!(catalog(&history).namespaces().len(), 3);
    history.relist("v1/Namespace", RelistPhase::End);
    let namespaces: Vec<String> = catalog(&history).namespaces().keys().map(ToString::to_string).collect();
    assert_eq!(namespaces, ["bookbuyer", "bookstore"]);
}

#[test]
fn texts_that_stay_do_not_keep_the_records_around_them() {
    let mut history = History::started();
    for number in 0..600 {
        history.apply(service("bookstore", &format!("s-{number}"), "10.96.0.1"));
        history.apply(service("bookstore", "changes", &format!("10.96.{}.{}", number / 250, number % 250)));
    }
    let catalog = catalog(&history);
    let parts = catalog.objects().values().filter(|object| object.json.is_part()).count();
    assert!(parts > 0 && parts < 256, "{parts} of {}", catalog.objects().len());
    let changes = &catalog.objects().get(&("v1/Service".into(), name("bookstore/changes"))).unwrap().json;
    assert!(changes.get().contains("10.96.2.99"), "{changes:?}");
}
