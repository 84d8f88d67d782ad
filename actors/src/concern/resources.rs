//! What a concern has put out.

use fsm_proxy_config::Digest;

use super::{Change, ResourceKey, Told};
use crate::catalog::Audience;
use crate::digest::{DigestMap, Entry, Member};

/// The resources of one concern. It gives changes only for what really differs.
#[derive(Clone, Debug, Default)]
pub struct Resources(DigestMap<ResourceKey, Told>);

impl Resources {
    /// The content of a resource.
    pub fn get(&self, key: &ResourceKey) -> Option<&Told> {
        self.0.get(key)
    }

    /// Sets (or removes) a resource, and notes the change in `changes` if there is one. Gives whether there is.
    pub fn set(&mut self, key: ResourceKey, told: Option<Told>, changes: &mut Vec<Change>) -> bool {
        if self.get(&key) == told.as_ref() {
            return false;
        }
        self.0.set(&key, told.clone());
        changes.push(Change { key, told });
        true
    }

    /// A digest of all names, contents and audiences.
    pub fn digest(&self) -> Digest {
        self.0.digest()
    }

    /// Hashes what changed since the last call.
    pub fn settle_digest(&mut self) {
        self.0.settle();
    }
}

impl Entry<ResourceKey> for Told {
    fn member(&self, key: &ResourceKey) -> Member {
        member(key, self, 0)
    }
}

/// One resource as the member of a set.
pub(crate) fn member(key: &ResourceKey, told: &Told, version: u64) -> Member {
    let name = key.name.to_string();
    let proxy = key.proxy.as_ref().map(ToString::to_string).unwrap_or_default();
    let audience: Vec<String> = match &told.audience {
        Audience::Everyone => vec!["*".to_owned()],
        Audience::Accounts(accounts) => accounts.iter().map(ToString::to_string).collect(),
    };
    let parts = [&version.to_be_bytes()[..], name.as_bytes(), proxy.as_bytes(), &told.bytes];
    Member::of(parts.into_iter().chain(audience.iter().map(String::as_bytes)))
}
