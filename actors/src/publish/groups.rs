//! Things that belong to something else.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hash};

use crate::digest::Quick;

/// Sets of members, each of an owner. Owners are found by hash, and nobody sees in which order they lie.
#[derive(Clone, Debug)]
pub(super) struct Groups<K, V>(HashMap<K, BTreeSet<V>, BuildHasherDefault<Quick>>);

impl<K: Eq + Hash + Clone, V: Ord> Groups<K, V> {
    /// The members of an owner, in order.
    pub fn of(&self, owner: &K) -> impl Iterator<Item = &V> + use<'_, K, V> {
        self.0.get(owner).into_iter().flatten()
    }

    pub fn insert(&mut self, owner: &K, member: V) {
        match self.0.get_mut(owner) {
            Some(members) => members.insert(member),
            None => self.0.insert(owner.clone(), BTreeSet::from([member])).is_none(),
        };
    }

    pub fn remove(&mut self, owner: &K, member: &V) {
        if let Some(members) = self.0.get_mut(owner) {
            members.remove(member);
            if members.is_empty() {
                self.0.remove(owner);
            }
        }
    }
}

impl<K, V> Default for Groups<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

#[cfg(test)]
mod tests {
    use super::Groups;

    #[test]
    fn members_come_and_go() {
        let mut groups = Groups::default();
        for (owner, member) in [("a", 2), ("a", 1), ("b", 3), ("a", 2)] {
            groups.insert(&owner, member);
        }
        assert!(groups.of(&"a").eq(&[1, 2]) && groups.of(&"b").eq(&[3]));
        for (owner, member) in [("a", 2), ("b", 3), ("b", 3), ("c", 1)] {
            groups.remove(&owner, &member);
        }
        assert!(groups.of(&"a").eq(&[1]) && groups.of(&"b").next().is_none());
        assert_eq!(groups.0.len(), 1);
    }
}
