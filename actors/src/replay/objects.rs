//! What a record changed among the objects of Kubernetes.

use fsm_store::Record;

use crate::catalog::{Catalog, Object, ObjectKey, PersistentMap, canonical};

/// All objects at one seq.
pub type Objects = PersistentMap<ObjectKey, Object>;

/// An object before and after a record: created if there is no `before`, deleted if there is no `after`.
#[derive(Clone, Debug)]
pub struct ObjectStep {
    pub key: ObjectKey,
    pub before: Option<Object>,
    pub after: Option<Object>,
}

/// What a record changed: nothing, one object, or, at the end of a list, all that were not named in it. `before` are the objects as
/// they were before it, `after` is the catalog with it.
///
/// An object that was seen again without a change counts as changed: its content says whether it is.
pub fn steps(before: &Objects, after: &Catalog, record: &Record) -> Vec<ObjectStep> {
    match &*record.entry.topic {
        "object" => {
            let key =
                record.entry.key.split_once(' ').and_then(|(gvk, name)| Some((canonical(gvk), name.parse().ok()?)));
            key.into_iter().filter_map(|key| step(before, after, key)).collect()
        }
        "relist" => {
            let gvk = canonical(&record.entry.key);
            let mut gone: Vec<&ObjectKey> =
                before.of_kind(&gvk).filter(|key| !after.objects().contains_key(key)).collect();
            gone.sort_unstable();
            gone.into_iter().cloned().filter_map(|key| step(before, after, key)).collect()
        }
        _ => Vec::new(),
    }
}

fn step(before: &Objects, after: &Catalog, key: ObjectKey) -> Option<ObjectStep> {
    let (before, after) = (before.get(&key).cloned(), after.objects().get(&key).cloned());
    (before.is_some() || after.is_some()).then_some(ObjectStep { key, before, after })
}

#[cfg(test)]
mod tests {
    use fsm_store::{Seq, Timestamp, TraceContext};
    use serde_json::json;

    use super::*;
    use crate::Core;
    use crate::fact::{Fact, Relist, RelistPhase};

    fn pod(name: &str) -> serde_json::Value {
        json!({ "metadata": { "namespace": "shop", "name": name } })
    }

    #[test]
    fn a_record_changes_one_object_or_ends_a_list_that_did_not_name_some() {
        let list = |phase| Fact::Relist(Relist { gvk: "v1/Pod".into(), phase });
        let facts = [
            Fact::applied("v1/Pod", &pod("a")),
            Fact::applied("v1/Pod", &pod("b")),
            Fact::deleted("v1/Pod", &pod("b")),
            list(RelistPhase::Begin),
            Fact::applied("v1/Pod", &pod("c")),
            list(RelistPhase::End),
        ];
        let mut core = Core::default();
        let mut seen = Vec::new();
        for (fact, seq) in facts.iter().zip(1..) {
            let before = core.catalog().objects().clone();
            let record = Record { seq: Seq(seq), time: Timestamp(seq), entry: fact.to_entry(TraceContext::default()) };
            core.apply_one(&record);
            for step in steps(&before, core.catalog(), &record) {
                seen.push((seq, step.key.1.name().to_owned(), step.before.is_some(), step.after.is_some()));
            }
        }
        let expected = [
            (1, "a".to_owned(), false, true),
            (2, "b".to_owned(), false, true),
            (3, "b".to_owned(), true, false),
            (5, "c".to_owned(), false, true),
            (6, "a".to_owned(), true, false),
        ];
        assert_eq!(seen, expected);
    }
}
