//! What a concern has put out.

use std::collections::BTreeMap;

use fsm_proxy_config::Digest;
use sha2::{Digest as _, Sha256};

use super::{Change, ResourceKey, Told};
use crate::catalog::Audience;

/// The resources of one concern. It gives changes only for what really differs.
#[derive(Clone, Debug, Default)]
pub struct Resources(BTreeMap<ResourceKey, Told>);

impl Resources {
    /// The content of a resource.
    pub fn get(&self, key: &ResourceKey) -> Option<&Told> {
        self.0.get(key)
    }

    /// Sets (or removes) a resource, and notes the change in `changes` if there is one. Gives whether there is.
    pub fn set(&mut self, key: ResourceKey, told: Option<Told>, changes: &mut Vec<Change>) -> bool {
        if self.0.get(&key) == told.as_ref() {
            return false;
        }
        match told.clone() {
            Some(told) => self.0.insert(key.clone(), told),
            None => self.0.remove(&key),
        };
        changes.push(Change { key, told });
        true
    }

    /// A digest of all names, contents and audiences.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        for (key, told) in &self.0 {
            hash_told(&mut hash, key, told);
        }
        Digest(hash.finalize().into())
    }
}

/// Adds one resource to a digest.
pub(crate) fn hash_told(hash: &mut Sha256, key: &ResourceKey, told: &Told) {
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(key.name.to_string().as_bytes());
    part(key.proxy.as_ref().map(ToString::to_string).unwrap_or_default().as_bytes());
    part(&told.bytes);
    match &told.audience {
        Audience::Everyone => part(b"*"),
        Audience::Accounts(accounts) => accounts.iter().for_each(|account| part(account.to_string().as_bytes())),
    }
}
