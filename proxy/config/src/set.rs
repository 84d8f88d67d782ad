//! All resources of one proxy at one seq, as bytes: what is streamed, acknowledged, kept on disk and replayed.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::resource::ResourceName;

/// One resource: the seq at which it last changed, and its encoded message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub version: u64,
    pub bytes: Bytes,
}

/// The configuration of one proxy at one seq.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSet {
    pub seq: u64,
    pub resources: BTreeMap<ResourceName, Entry>,
}

/// What leads from one [`ConfigSet`] to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    pub seq: u64,
    pub changed: BTreeMap<ResourceName, Entry>,
    pub removed: Vec<ResourceName>,
}

impl ConfigSet {
    /// The set after `update`; names that are removed but not there are ignored.
    pub fn apply(&mut self, update: &Update) {
        self.seq = update.seq;
        for name in &update.removed {
            self.resources.remove(name);
        }
        for (name, entry) in &update.changed {
            self.resources.insert(name.clone(), entry.clone());
        }
    }

    /// A digest of all names and bytes, not of versions and seq: two sets that tell a proxy the same have the same one.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        for (name, entry) in &self.resources {
            let name = name.to_string();
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name.as_bytes());
            hash.update((entry.bytes.len() as u64).to_be_bytes());
            hash.update(&entry.bytes);
        }
        Digest(hash.finalize().into())
    }
}

/// A SHA-256 digest of a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
