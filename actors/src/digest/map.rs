//! A map that has a digest.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash};

use fsm_proxy_config::Digest;

use super::hash::Quick;

use super::{Member, SetDigest};

/// A map with a digest of the set of its entries.
///
/// Most entries change again before anybody wants to know the digest: they are hashed when somebody does. What is hashed once need not be
/// hashed again if the owner says [`DigestMap::settle`] before.
///
/// Entries are found by hash, and nobody sees in which order they lie: they are summed up, or sorted before they are handed out.
#[derive(Clone, Debug)]
pub(crate) struct DigestMap<K, V> {
    /// With the part that each has in `counted`; none if it is not counted yet.
    entries: HashMap<K, (V, Option<Member>), BuildHasherDefault<Quick>>,
    counted: SetDigest,
    /// The keys of entries that are not counted yet.
    waiting: HashSet<K, BuildHasherDefault<Quick>>,
}

/// What can be an entry of a [`DigestMap`].
pub(crate) trait Entry<K> {
    /// This entry as the member of a set.
    fn member(&self, key: &K) -> Member;
}

impl<K: Ord + Hash + Clone, V: Entry<K>> DigestMap<K, V> {
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// All entries, in the order of the keys.
    pub fn sorted(&self) -> Vec<(&K, &V)> {
        let mut entries: Vec<(&K, &V)> = self.entries.iter().map(|(key, (value, _))| (key, value)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries
    }

    /// Sets (or removes) an entry; gives the one before.
    pub fn set(&mut self, key: &K, value: Option<V>) -> Option<V> {
        let is_there = value.is_some();
        let before = match value {
            Some(value) => match self.entries.get_mut(key) {
                Some(place) => Some(std::mem::replace(place, (value, None))),
                None => self.entries.insert(key.clone(), (value, None)),
            },
            None => self.entries.remove(key),
        };
        let (before, member) = before.map_or((None, None), |(before, member)| (Some(before), member));
        if let Some(member) = member {
            self.counted.remove(member);
        }
        if !is_there {
            self.waiting.remove(key);
        } else if before.is_none() || member.is_some() {
            self.waiting.insert(key.clone());
        }
        before
    }

    /// The entries as a set.
    pub fn members(&self) -> SetDigest {
        let mut all = self.counted;
        for key in &self.waiting {
            if let Some((value, _)) = self.entries.get(key) {
                all.add(value.member(key));
            }
        }
        all
    }

    /// The digest of the entries.
    pub fn digest(&self) -> Digest {
        self.members().digest()
    }

    /// Counts what changed since the last call.
    pub fn settle(&mut self) {
        for key in std::mem::take(&mut self.waiting) {
            if let Some((value, counted)) = self.entries.get_mut(&key) {
                let member = value.member(&key);
                self.counted.add(member);
                *counted = Some(member);
            }
        }
    }
}

impl<K, V> Default for DigestMap<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::default(), counted: SetDigest::default(), waiting: HashSet::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Entry<u8> for u8 {
        fn member(&self, key: &u8) -> Member {
            Member::of([&[*key][..], &[*self]])
        }
    }

    proptest! {
        #[test]
        fn the_digest_is_that_of_the_entries(
            steps in prop::collection::vec((0..20_u8, any::<Option<u8>>(), 0..6_u8), 0..120),
        ) {
            let (mut map, mut model) = (DigestMap::default(), BTreeMap::new());
            for (key, value, then) in steps {
                let before = match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
                prop_assert_eq!(map.set(&key, value), before);
                if then == 0 {
                    map.settle();
                }
                if then < 2 {
                    let mut fresh = SetDigest::default();
                    model.iter().for_each(|(key, value)| fresh.add(value.member(key)));
                    prop_assert_eq!(map.digest(), fresh.digest());
                }
            }
            prop_assert!(map.sorted().into_iter().eq(model.iter()));
        }
    }
}
