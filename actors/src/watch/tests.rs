use std::collections::{BTreeMap, BTreeSet};

use fsm_api::kinds;
use serde_json::{Value, json};

use super::*;
use crate::catalog::ObjectName;
use crate::fact::{Fact, ObjectChange, RelistPhase};

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/watch");

/// What a reader of the log holds: object to resourceVersion, by kind and name.
#[derive(Default)]
struct Reader {
    objects: BTreeMap<String, String>,
    unnamed: BTreeMap<String, BTreeSet<String>>,
    applied: usize,
}

impl Reader {
    fn read(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            match fact {
                Fact::Object(fact) => {
                    let key = format!("{} {}", fact.gvk, fact.name);
                    if fact.change == ObjectChange::Deleted {
                        self.objects.remove(&key);
                        continue;
                    }
                    let object: Value = serde_json::from_str(fact.object.get()).unwrap();
                    assert!(fact.gvk.ends_with(object["kind"].as_str().unwrap()), "{object}");
                    self.applied += 1;
                    self.unnamed.get_mut(&*fact.gvk).map(|unnamed| unnamed.remove(&key));
                    self.objects.insert(key, object["metadata"]["resourceVersion"].as_str().unwrap().to_owned());
                }
                Fact::Relist(relist) if relist.phase == RelistPhase::Begin => {
                    let prefix = format!("{} ", relist.gvk);
                    let names = self.objects.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
                    self.unnamed.insert(relist.gvk, names);
                }
                Fact::Relist(relist) => {
                    for key in self.unnamed.remove(&relist.gvk).unwrap() {
                        self.objects.remove(&key);
                    }
                }
                other => panic!("a watch gave {other:?}"),
            }
        }
    }
}

fn pod(name: &str, version: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"), "resourceVersion": version}})
}

fn described(facts: &[Fact]) -> Vec<String> {
    let describe = |fact: &Fact| match fact {
        Fact::Object(fact) => format!("{:?} {}", fact.change, fact.name),
        Fact::Relist(relist) => format!("{:?}", relist.phase),
        other => format!("{other:?}"),
    };
    facts.iter().map(describe).collect()
}

fn see(watch: &mut KindWatch, seen: Vec<Seen>) -> Vec<String> {
    let facts: Vec<Fact> = seen.into_iter().flat_map(|seen| watch.see(seen)).collect();
    described(&facts)
}

#[test]
fn the_log_ends_with_what_the_server_has_whatever_interruptions_there_were() {
    let packed = std::fs::read(format!("{RECORDINGS}/relist.jsonl.zst")).unwrap();
    let text = String::from_utf8(zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    let mut watches: BTreeMap<&str, KindWatch> =
        kinds::WATCHED.into_iter().map(|kind| (kind.gvk(), KindWatch::new(kind))).collect();
    let mut reader = Reader::default();
    let mut lists = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let Some(watch) = watches.get_mut(line["gvk"].as_str().unwrap()) else { continue };
        let gvk = watch.info().gvk();
        let object = line["object"].clone();
        let in_list = watch.is_listing();
        let seen = match line["type"].as_str().unwrap() {
            "RELIST-BEGIN" => Seen::ListBegin,
            "RELIST-END" => Seen::ListEnd,
            "ADDED" | "MODIFIED" if in_list => Seen::Listed(object),
            "ADDED" | "MODIFIED" => Seen::Applied(object),
            "DELETED" => Seen::Deleted(object),
            "BOOKMARK" => continue,
            other => panic!("{gvk}: {other}"),
        };
        lists += usize::from(matches!(seen, Seen::ListEnd));
        reader.read(watch.see(seen));
    }
    let end = std::fs::read_to_string(format!("{RECORDINGS}/relist-end.json")).unwrap();
    let end: BTreeMap<String, String> = serde_json::from_str(&end).unwrap();
    assert_eq!(reader.objects, end);
    assert!(lists > watches.len(), "some kinds were listed again");
}

#[test]
fn deletion_is_recorded_with_the_object_as_it_was_last() {
    let text = std::fs::read_to_string(format!("{RECORDINGS}/namespace-delete-pods.jsonl")).unwrap();
    let mut watch = KindWatch::new(kinds::POD);
    let mut gone = Vec::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let object = line["event"]["object"].clone();
        let facts = match line["event"]["type"].as_str() {
            Some("ADDED" | "MODIFIED") => watch.see(Seen::Applied(object)),
            Some("DELETED") => watch.see(Seen::Deleted(object)),
            _ => continue,
        };
        gone.extend(facts.into_iter().filter_map(|fact| match fact {
            Fact::Object(fact) if fact.change == ObjectChange::Deleted => Some(fact),
            _ => None,
        }));
    }
    assert!(!gone.is_empty());
    for fact in gone {
        let object: Value = serde_json::from_str(fact.object.get()).unwrap();
        assert!(object["metadata"]["managedFields"].is_array(), "who changed what is kept");
        assert!(object["spec"]["containers"].is_array());
    }
}

#[test]
fn a_first_list_is_recorded_as_a_list() {
    let mut watch = KindWatch::new(kinds::POD);
    let seen = vec![Seen::ListBegin, Seen::Listed(pod("a", "1")), Seen::ListEnd, Seen::Applied(pod("b", "2"))];
    assert_eq!(see(&mut watch, seen), ["Begin", "Applied shop/a", "End", "Applied shop/b"]);
}

#[test]
fn an_empty_list_is_no_news() {
    let mut watch = KindWatch::new(kinds::POD);
    assert_eq!(see(&mut watch, vec![Seen::ListBegin, Seen::ListEnd]), Vec::<String>::new());
    assert_eq!(see(&mut watch, vec![Seen::Applied(pod("a", "1"))]), ["Applied shop/a"]);
}

#[test]
fn after_a_restart_only_differences_are_recorded() {
    let mut watch = KindWatch::new(kinds::POD);
    for object in [pod("same", "1"), pod("changed", "1"), pod("gone", "1")] {
        watch.know(&object);
    }
    let list = vec![
        Seen::ListBegin,
        Seen::Listed(pod("changed", "5")),
        Seen::Listed(pod("new", "4")),
        Seen::Listed(pod("same", "1")),
        Seen::ListEnd,
    ];
    assert_eq!(see(&mut watch, list.clone()), ["Applied shop/changed", "Applied shop/new", "Deleted shop/gone"]);
    assert_eq!(see(&mut watch, list), Vec::<String>::new(), "a second list has no news");
}

#[test]
fn an_object_made_again_under_its_name_is_new_though_versions_may_coincide() {
    let mut watch = KindWatch::new(kinds::POD);
    watch.know(&pod("a", "1"));
    let mut again = pod("a", "1");
    again["metadata"]["uid"] = "another".into();
    assert_eq!(see(&mut watch, vec![Seen::ListBegin, Seen::Listed(again), Seen::ListEnd]), ["Applied shop/a"]);
}

#[test]
fn a_list_that_breaks_off_and_begins_again_loses_and_repeats_nothing() {
    let mut watch = KindWatch::new(kinds::POD);
    let broken = vec![Seen::ListBegin, Seen::Listed(pod("a", "1")), Seen::Listed(pod("b", "1"))];
    assert_eq!(see(&mut watch, broken), ["Begin", "Applied shop/a", "Applied shop/b"]);
    let again = vec![Seen::ListBegin, Seen::Listed(pod("b", "1")), Seen::Listed(pod("c", "2")), Seen::ListEnd];
    assert_eq!(see(&mut watch, again), ["Applied shop/c", "Deleted shop/a", "End"]);
    let mut reader = Reader::default();
    reader.read(watch.see(Seen::Applied(pod("a", "9"))));
    assert_eq!(reader.applied, 1);
}

#[test]
fn objects_are_recorded_as_they_were_sent() {
    let object: WatchedObject = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "resourceVersion": "7", "creationTimestamp": "2026-11-22T22:27:13Z", "strange": [1, null]},
    }))
    .unwrap();
    let mut watch = KindWatch::new(kinds::NAMESPACE);
    let facts = watch.see(Seen::Applied(object.json.clone()));
    let [Fact::Object(fact)] = facts.as_slice() else { panic!("{facts:?}") };
    assert_eq!(fact.name, ObjectName::new("", "shop"));
    assert_eq!(serde_json::from_str::<Value>(fact.object.get()).unwrap(), object.json);
    assert!(serde_json::from_value::<WatchedObject>(json!({"metadata": {}})).is_err());
}
