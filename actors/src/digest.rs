//! Digests of sets that follow their changes, so that a state digest costs nothing when it is due.

mod hash;
mod map;

use fsm_proxy_config::Digest;
use sha2::{Digest as _, Sha256};

pub(crate) use hash::Quick;
pub(crate) use map::{DigestMap, Entry};

/// The sum of the SHA-256 digests of a set's members, modulo 2^256.
///
/// Equal sets have equal digests, whatever the order of changes. It proves that two computations came to the same, which is what
/// it is for; against somebody who constructs collisions the log's own hash chain protects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetDigest([u64; 4]);

/// The digest of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member([u64; 4]);

impl Member {
    /// Of a member that is made of these parts.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let bytes: [u8; 32] = hash.finalize().into();
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Self(words)
    }
}

impl SetDigest {
    /// A member joins.
    pub fn add(&mut self, member: Member) {
        let mut carry = false;
        for (word, other) in self.0.iter_mut().zip(member.0).rev() {
            let (sum, first) = word.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, first || second);
        }
    }

    /// A member leaves.
    pub fn remove(&mut self, member: Member) {
        let mut borrow = false;
        for (word, other) in self.0.iter_mut().zip(member.0).rev() {
            let (rest, first) = word.overflowing_sub(other);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (rest, first || second);
        }
    }

    /// All members of another set join, none of which is in this one.
    pub fn join(&mut self, other: Self) {
        self.add(Member(other.0));
    }

    /// The digest of the set as it is now.
    pub fn digest(&self) -> Digest {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        Digest(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equal_sets_have_equal_digests(steps in prop::collection::vec((any::<u8>(), any::<bool>()), 0..100)) {
            let member = |byte: u8| Member::of([&[byte][..]]);
            let mut followed = SetDigest::default();
            let mut set = BTreeSet::new();
            for (byte, there) in steps {
                if there && set.insert(byte) {
                    followed.add(member(byte));
                } else if !there && set.remove(&byte) {
                    followed.remove(member(byte));
                }
            }
            let mut fresh = SetDigest::default();
            set.iter().rev().for_each(|byte| fresh.add(member(*byte)));
            prop_assert_eq!(followed.digest(), fresh.digest());
            fresh.add(Member::of([&b"another"[..]]));
            prop_assert_ne!(followed.digest(), fresh.digest());
        }
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(Member::of([&b"ab"[..], b"c"]), Member::of([&b"a"[..], b"bc"]));
    }
}
