//! How the keys of objects lie in maps.

use std::cmp::Ordering;

use super::{Gvk, Key, ObjectKey, PersistentMap};

impl Key for Gvk {
    fn place(&self, other: &Self) -> Ordering {
        if std::ptr::eq(self.as_ptr(), other.as_ptr()) && self.len() == other.len() {
            return Ordering::Equal;
        }
        self.cmp(other)
    }
}

/// Objects of a kind lie together.
impl Key for ObjectKey {
    fn place(&self, other: &Self) -> Ordering {
        self.0.place(&other.0).then_with(|| self.1.place(&other.1))
    }
}

impl<T> PersistentMap<ObjectKey, T> {
    /// The keys of a kind, as they lie.
    pub fn of_kind(&self, gvk: &Gvk) -> impl Iterator<Item = &ObjectKey> {
        let from = self.range_where(|(kind, _)| kind.place(gvk).is_lt()).map(|(key, _)| key);
        from.take_while(move |(kind, _)| kind == gvk)
    }
}
