//! Sets of few things: most records touch one thing or none, and a short vector in order is quicker than a tree then.

use smallvec::SmallVec;

/// A set, in order. It may become large: what joins it in order goes to the end, and what joins it together is sorted at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Few<T>(SmallVec<[T; 2]>);

impl<T> Few<T> {
    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The members, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<T: Ord> Few<T> {
    /// Adds a member, unless it is there.
    pub fn insert(&mut self, member: T) {
        if self.0.last().is_none_or(|last| *last < member) {
            self.0.push(member);
        } else if let Err(place) = self.0.binary_search(&member) {
            self.0.insert(place, member);
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<T: Ord> Extend<T> for Few<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, members: I) {
        let before = self.0.len();
        self.0.extend(members);
        if !self.0[before.saturating_sub(1)..].is_sorted_by(|one, next| one < next) {
            self.0.sort();
            self.0.dedup();
        }
    }
}

impl<T: Ord> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Self {
        let mut few = Self::default();
        few.extend(members);
        few
    }
}

impl<T> IntoIterator for Few<T> {
    type Item = T;
    type IntoIter = smallvec::IntoIter<[T; 2]>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::Few;

    proptest! {
        #[test]
        fn it_is_a_set_in_order(steps in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..40)) {
            let (mut few, mut model) = (Few::default(), BTreeSet::new());
            for step in steps {
                match step[..] {
                    [one] => few.insert(one),
                    _ => few.extend(step.iter().copied()),
                }
                model.extend(step);
                prop_assert_eq!(few.is_empty(), model.is_empty());
                prop_assert!(few.iter().eq(&model), "{few:?} {model:?}");
            }
            prop_assert_eq!(&few, &model.iter().rev().copied().collect());
            prop_assert!(few.into_iter().eq(model));
        }
    }
}
