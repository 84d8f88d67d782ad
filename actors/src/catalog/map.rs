//! A map of which cheap copies can be kept: the catalog's versions share all that did not change.
//!
//! A balanced (AVL) tree of shared nodes. Cloning it copies one pointer; a change copies the path to the changed key, and
//! only those nodes of it that another version still uses.
//!
//! Keys lie in an order of their own ([`Key`]), which is quicker to follow than the one that people like to see; whoever goes over all of
//! them gets them in the latter.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

/// What can be a key of a [`PersistentMap`].
pub trait Key: Clone {
    /// How two keys follow each other in the tree. It has to be the same in every process, and as [`Eq`] about which keys are equal.
    fn place(&self, other: &Self) -> Ordering;
}

/// See the module's documentation.
pub struct PersistentMap<K, V> {
    root: Link<K, V>,
    len: usize,
}

type Link<K, V> = Option<Arc<Node<K, V>>>;

#[derive(Clone)]
struct Node<K, V> {
    key: K,
    value: V,
    height: u32,
    left: Link<K, V>,
    right: Link<K, V>,
}

impl<K, V> PersistentMap<K, V> {
    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no key.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both are one version of one map: then they are equal. (Equal maps may be two versions.)
    pub fn is_same_version(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// All pairs, as they lie.
    pub fn unordered(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { stack: SmallVec::new() };
        iter.push_left(&self.root);
        iter
    }

    /// The value of the key of which `place` says that it lies neither before nor after what is looked for.
    pub fn find(&self, place: impl Fn(&K) -> Ordering) -> Option<&V> {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match place(&node.key) {
                Ordering::Greater => &node.left,
                Ordering::Less => &node.right,
                Ordering::Equal => return Some(&node.value),
            };
        }
        None
    }

    /// The pairs from the first key on that does not lie before what is looked for, as they lie.
    pub fn range_where(&self, before: impl Fn(&K) -> bool) -> Iter<'_, K, V> {
        let mut iter = Iter { stack: SmallVec::new() };
        let mut link = &self.root;
        while let Some(node) = link {
            link = if before(&node.key) {
                &node.right
            } else {
                iter.stack.push(node);
                &node.left
            };
        }
        iter
    }
}

impl<K: Ord, V> PersistentMap<K, V> {
    /// All pairs, in the order of the keys.
    pub fn iter(&self) -> std::vec::IntoIter<(&K, &V)> {
        let mut pairs: Vec<(&K, &V)> = self.unordered().collect();
        pairs.sort_unstable_by_key(|(key, _)| *key);
        pairs.into_iter()
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }
}

impl<K: Key, V> PersistentMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(|its| its.place(key))
    }

    /// Whether it has this key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
}

impl<K: Key, V: Clone> PersistentMap<K, V> {
    /// Sets the value of a key; gives the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        // A value that is replaced moves nothing.
        if let Some(place) = self.get_mut(&key) {
            return Some(std::mem::replace(place, value));
        }
        insert(&mut self.root, key, value);
        self.len += 1;
        None
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        // Looking first keeps nodes shared if there is nothing to do.
        self.get(key)?;
        let mut link = &mut self.root;
        while let Some(shared) = link {
            let node = Arc::make_mut(shared);
            link = match node.key.place(key) {
                Ordering::Greater => &mut node.left,
                Ordering::Less => &mut node.right,
                Ordering::Equal => return Some(&mut node.value),
            };
        }
        None
    }

    /// Takes a key out; gives its value.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        let removed = remove(&mut self.root, key);
        self.len -= usize::from(removed.is_some());
        removed.map(|(_, value)| value)
    }
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<K: fmt::Debug + Ord, V: fmt::Debug> fmt::Debug for PersistentMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Pairs as they lie.
pub struct Iter<'a, K, V> {
    /// What is left of the path from the root: of most maps this is all there is room needed for.
    stack: SmallVec<[&'a Node<K, V>; 16]>,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn push_left(&mut self, mut link: &'a Link<K, V>) {
        while let Some(node) = link {
            self.stack.push(node);
            link = &node.left;
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.stack.pop()?;
        self.push_left(&node.right);
        Some((&node.key, &node.value))
    }
}

fn height<K, V>(link: &Link<K, V>) -> u32 {
    link.as_ref().map_or(0, |node| node.height)
}

impl<K: Clone, V: Clone> Node<K, V> {
    fn measure(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
    }
}

/// Puts in a key that is not there.
fn insert<K: Key, V: Clone>(link: &mut Link<K, V>, key: K, value: V) {
    let Some(shared) = link else {
        *link = Some(Arc::new(Node { key, value, height: 1, left: None, right: None }));
        return;
    };
    let node = Arc::make_mut(shared);
    let side = if key.place(&node.key).is_lt() { &mut node.left } else { &mut node.right };
    insert(side, key, value);
    balance(shared);
}

fn remove<K: Key, V: Clone>(link: &mut Link<K, V>, key: &K) -> Option<(K, V)> {
    let shared = link.as_mut()?;
    let node = Arc::make_mut(shared);
    let removed = match key.place(&node.key) {
        Ordering::Less => remove(&mut node.left, key),
        Ordering::Greater => remove(&mut node.right, key),
        Ordering::Equal => match (node.left.take(), node.right.take()) {
            (left, None) => return unlink(link, left),
            (None, right) => return unlink(link, right),
            (left, mut right) => {
                let (next_key, next_value) = take_first(&mut right)?;
                (node.left, node.right) = (left, right);
                let key = std::mem::replace(&mut node.key, next_key);
                Some((key, std::mem::replace(&mut node.value, next_value)))
            }
        },
    };
    balance(shared);
    removed
}

/// Puts `rest` in the place of the node at `link`, which has no other child any more.
fn unlink<K: Clone, V: Clone>(link: &mut Link<K, V>, rest: Link<K, V>) -> Option<(K, V)> {
    let node = std::mem::replace(link, rest)?;
    let node = Arc::unwrap_or_clone(node);
    Some((node.key, node.value))
}

fn take_first<K: Clone, V: Clone>(link: &mut Link<K, V>) -> Option<(K, V)> {
    let shared = link.as_mut()?;
    let node = Arc::make_mut(shared);
    if node.left.is_none() {
        let right = node.right.take();
        return unlink(link, right);
    }
    let first = take_first(&mut node.left);
    balance(shared);
    first
}

/// Restores the AVL rule (the heights of both sides differ by one at most) at a node whose sides have it.
fn balance<K: Clone, V: Clone>(shared: &mut Arc<Node<K, V>>) {
    let node = Arc::make_mut(shared);
    node.measure();
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        if let Some(child) = &mut node.left
            && height(&child.left) < height(&child.right)
        {
            rotate_left(child);
        }
        rotate_right(shared);
    } else if right > left + 1 {
        if let Some(child) = &mut node.right
            && height(&child.right) < height(&child.left)
        {
            rotate_right(child);
        }
        rotate_left(shared);
    }
}

fn rotate_right<K: Clone, V: Clone>(shared: &mut Arc<Node<K, V>>) {
    let node = Arc::make_mut(shared);
    if let Some(mut top) = node.left.take() {
        node.left = Arc::make_mut(&mut top).right.take();
        node.measure();
        std::mem::swap(shared, &mut top);
        let new_top = Arc::make_mut(shared);
        new_top.right = Some(top);
        new_top.measure();
    }
}

fn rotate_left<K: Clone, V: Clone>(shared: &mut Arc<Node<K, V>>) {
    let node = Arc::make_mut(shared);
    if let Some(mut top) = node.right.take() {
        node.right = Arc::make_mut(&mut top).left.take();
        node.measure();
        std::mem::swap(shared, &mut top);
        let new_top = Arc::make_mut(shared);
        new_top.left = Some(top);
        new_top.measure();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn pairs(map: &PersistentMap<u8, u32>) -> Vec<(u8, u32)> {
        map.iter().map(|(key, value)| (*key, *value)).collect()
    }

    /// Backwards: an order of its own.
    impl Key for u8 {
        fn place(&self, other: &Self) -> Ordering {
            other.cmp(self)
        }
    }

    fn check<K, V>(link: &Link<K, V>) -> u32 {
        let Some(node) = link else { return 0 };
        let (left, right) = (check(&node.left), check(&node.right));
        assert!(left.abs_diff(right) <= 1, "unbalanced");
        assert_eq!(node.height, 1 + left.max(right));
        node.height
    }

    proptest! {
        /// Every version stays as it was, and equals a plain map of the same history.
        #[test]
        fn versions_are_independent(steps in prop::collection::vec((any::<u8>(), any::<Option<u32>>()), 0..200)) {
            let mut map = PersistentMap::default();
            let mut model = BTreeMap::new();
            let mut versions = Vec::new();
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                check(&map.root);
                versions.push((map.clone(), model.clone()));
            }
            for (map, model) in versions {
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(pairs(&map), model.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>());
                for from in [0, 1, 100, 255] {
                    let range: Vec<u8> = map.range_where(|key| *key > from).map(|(key, _)| *key).collect();
                    prop_assert_eq!(range, model.range(..=from).rev().map(|(key, _)| *key).collect::<Vec<_>>());
                    prop_assert_eq!(map.get(&from), model.get(&from));
                    let mut changed = map.clone();
                    prop_assert_eq!(changed.get_mut(&from).is_some(), model.contains_key(&from));
                    changed.get_mut(&from).into_iter().for_each(|value| *value = value.wrapping_add(1));
                    prop_assert_eq!(changed.get(&from).copied(), model.get(&from).map(|value| value.wrapping_add(1)));
                    prop_assert_eq!(map.get(&from), model.get(&from));
                }
            }
        }
    }
}
