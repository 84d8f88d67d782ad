//! The digest of all objects, computed when it is asked for.
//!
//! Most objects change again before anybody wants to know a digest: only what is there then is hashed.

use super::map::PersistentMap;
use super::{Object, ObjectKey};
use crate::digest::{Member, SetDigest};
use fsm_proxy_config::Digest;

/// So many objects wait to be hashed at most: no digest takes longer than that.
const WAITING: usize = 1024;

/// A clone is a version, as of the catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectsDigest {
    /// Of all objects that don't wait.
    counted: SetDigest,
    /// Objects that are not counted yet.
    waiting: PersistentMap<ObjectKey, ()>,
}

impl ObjectsDigest {
    /// An object was put in the place of `before`; `objects` is as it is now.
    pub fn put(&mut self, key: ObjectKey, before: Option<&Object>, objects: &PersistentMap<ObjectKey, Object>) {
        if let Some(before) = before.filter(|_| !self.waiting.contains_key(&key)) {
            self.counted.remove(member(&key, before));
        }
        self.waiting.insert(key, ());
        if self.waiting.len() > WAITING {
            self.counted = self.all(objects);
            self.waiting = PersistentMap::default();
        }
    }

    /// An object is gone.
    pub fn removed(&mut self, key: &ObjectKey, before: &Object) {
        if self.waiting.remove(key).is_none() {
            self.counted.remove(member(key, before));
        }
    }

    pub fn digest(&self, objects: &PersistentMap<ObjectKey, Object>) -> Digest {
        self.all(objects).digest()
    }

    fn all(&self, objects: &PersistentMap<ObjectKey, Object>) -> SetDigest {
        let mut all = self.counted;
        for key in self.waiting.keys() {
            if let Some(object) = objects.get(key) {
                all.add(member(key, object));
            }
        }
        all
    }
}

fn member((gvk, name): &ObjectKey, object: &Object) -> Member {
    Member::of([gvk.as_str(), &name.namespace, &name.name, object.json.get()].map(str::as_bytes))
}
