//! The digest of all objects, computed when it is asked for.
//!
//! Most objects change again before anybody wants to know a digest: only what is there then is hashed.

use super::map::PersistentMap;
use super::{Object, ObjectKey};
use crate::digest::{Member, SetDigest};
use fsm_proxy_config::Digest;

/// A clone is a version, as of the catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct ObjectsDigest {
    /// Of all objects that don't wait.
    counted: SetDigest,
    /// Objects that are not counted yet.
    waiting: PersistentMap<ObjectKey, ()>,
}

impl ObjectsDigest {
    /// An object was put in the place of `before`.
    pub fn put(&mut self, key: &ObjectKey, before: Option<&Object>) {
        match before.map(|before| before.counted) {
            // It waits already.
            Some(None) => return,
            Some(Some(member)) => self.counted.remove(member),
            None => {}
        }
        self.waiting.insert(key.clone(), ());
    }

    /// An object is gone.
    pub fn removed(&mut self, key: &ObjectKey, before: &Object) {
        match before.counted {
            Some(member) => self.counted.remove(member),
            None => drop(self.waiting.remove(key)),
        }
    }

    /// The digest; what waits is hashed for it.
    pub fn digest(&self, objects: &PersistentMap<ObjectKey, Object>) -> Digest {
        let mut all = self.counted;
        for (key, ()) in self.waiting.unordered() {
            if let Some(object) = objects.get(key) {
                all.add(member(key, object));
            }
        }
        all.digest()
    }

    /// Counts what waits.
    pub fn settle(&mut self, objects: &mut PersistentMap<ObjectKey, Object>) {
        for (key, ()) in std::mem::take(&mut self.waiting).unordered() {
            if let Some(object) = objects.get_mut(key) {
                let member = member(key, object);
                self.counted.add(member);
                object.counted = Some(member);
            }
        }
    }
}

fn member((gvk, name): &ObjectKey, object: &Object) -> Member {
    Member::of([gvk, name.namespace(), name.name(), object.json.get()].map(str::as_bytes))
}
