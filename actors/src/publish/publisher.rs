//! Joins the concerns' resources into what each proxy is told. Pure: no mailbox, no stream.

use std::collections::{BTreeMap, BTreeSet};

use fsm_proxy_config::{ConfigSet, Digest, Entry, ResourceName, Update};
use fsm_store::{Seq, TraceContext};

use super::groups::Groups;
use crate::catalog::view::Account;
use crate::catalog::{Audience, Catalog, Delta, Few, ObjectName};
use crate::concern::{Change, ResourceKey, Told};
use crate::digest::{self, DigestMap, Member};

/// What one proxy has to be told now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUpdate {
    /// `<namespace>/<pod>`
    pub proxy: ObjectName,
    pub update: Update,
    /// The change that led to it: of the last record in it that had one.
    pub trace: TraceContext,
}

/// Whose updates are collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Followed {
    /// Nobody's: only states are asked for.
    #[default]
    Nobody,
    Everybody,
    These(BTreeSet<ObjectName>),
}

impl Followed {
    fn contains(&self, proxy: &ObjectName) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            Self::These(proxies) => proxies.contains(proxy),
        }
    }
}

/// All resources of the mesh, and who is told which. What a proxy is told at a seq is a function of the log up to it.
#[derive(Clone, Debug, Default)]
pub struct Publisher {
    resources: DigestMap<ResourceKey, Published>,
    everyone: BTreeSet<ResourceName>,
    by_account: Groups<Account, ResourceName>,
    by_proxy: Groups<ObjectName, ResourceName>,
    /// Every pod with a proxy.
    proxies: DigestMap<ObjectName, Account>,
    proxies_by_account: Groups<Account, ObjectName>,
    followed: Followed,
    pending: BTreeMap<ObjectName, Pending>,
    /// Followed proxies that left or became somebody else: what they hold cannot be built upon.
    left: BTreeSet<ObjectName>,
}

#[derive(Clone, Debug)]
struct Published {
    /// The record that last changed the bytes.
    version: Seq,
    told: Told,
}

impl digest::Entry<ResourceKey> for Published {
    fn member(&self, key: &ResourceKey) -> Member {
        crate::concern::member(key, &self.told, self.version.0)
    }
}

#[derive(Clone, Debug, Default)]
struct Pending {
    /// The new entry, or none if it is gone for this proxy.
    changed: BTreeMap<ResourceName, Option<Entry>>,
    trace: TraceContext,
}

impl Publisher {
    /// Says whose updates [`Publisher::take_updates`] gives from now on.
    pub fn follow(&mut self, followed: Followed) {
        self.pending.retain(|proxy, _| followed.contains(proxy));
        self.followed = followed;
    }

    /// Collects the updates of one more proxy.
    pub fn follow_one(&mut self, proxy: &ObjectName) {
        match &mut self.followed {
            Followed::Everybody => {}
            Followed::These(proxies) => {
                proxies.insert(proxy.clone());
            }
            Followed::Nobody => self.followed = Followed::These(BTreeSet::from([proxy.clone()])),
        }
    }

    /// Collects the updates of one proxy no more.
    pub fn unfollow_one(&mut self, proxy: &ObjectName) {
        if let Followed::These(proxies) = &mut self.followed {
            proxies.remove(proxy);
        }
        self.pending.remove(proxy);
    }

    /// Applies what record `seq` changed: first who the proxies are, then the concerns' resources.
    pub fn apply(&mut self, seq: Seq, catalog: &Catalog, delta: &Delta, changes: &[Change], trace: TraceContext) {
        self.proxies(catalog, delta, trace);
        for change in changes {
            self.resource(seq, change, trace);
        }
    }

    /// A publisher of these resources at once. `version_of` says which record last changed a resource.
    pub(crate) fn restore(
        catalog: &Catalog,
        delta: &Delta,
        changes: &[Change],
        version_of: impl Fn(&ResourceKey) -> Seq,
    ) -> Self {
        let mut publisher = Self::default();
        publisher.proxies(catalog, delta, TraceContext::default());
        for change in changes {
            publisher.resource(version_of(&change.key), change, TraceContext::default());
        }
        publisher
    }

    /// Every resource, and the record that last changed it.
    pub(crate) fn versions(&self) -> impl Iterator<Item = (&ResourceKey, Seq)> {
        self.resources.sorted().into_iter().map(|(key, published)| (key, published.version))
    }

    /// The updates of followed proxies since the last call, as the version `seq`.
    pub fn take_updates(&mut self, seq: Seq) -> Vec<ProxyUpdate> {
        let pending = std::mem::take(&mut self.pending);
        pending
            .into_iter()
            .map(|(proxy, pending)| {
                let mut update = Update { seq: seq.0, ..Update::default() };
                for (name, entry) in pending.changed {
                    match entry {
                        Some(entry) => drop(update.changed.insert(name, entry)),
                        None => update.removed.push(name),
                    }
                }
                ProxyUpdate { proxy, update, trace: pending.trace }
            })
            .collect()
    }

    /// Followed proxies that left the mesh since the last call, or that are somebody else now. What they hold says nothing about
    /// what they are to be told, even if they are back: their streams have to begin anew.
    pub fn take_left(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.left)
    }

    /// The service account of a proxy; none if there is no such proxy.
    pub fn account_of(&self, proxy: &ObjectName) -> Option<&Account> {
        self.proxies.get(proxy)
    }

    /// All proxies with their service accounts, in the order of their names.
    pub fn all_proxies(&self) -> impl Iterator<Item = (&ObjectName, &Account)> {
        self.proxies.sorted().into_iter()
    }

    /// A resource, whoever is told about it.
    pub fn resource_told(&self, key: &ResourceKey) -> Option<&Told> {
        self.resources.get(key).map(|published| &published.told)
    }

    /// All that a proxy is told now, as the version `seq`; none if there is no such proxy.
    pub fn config_of(&self, proxy: &ObjectName, seq: Seq) -> Option<ConfigSet> {
        let account = self.proxies.get(proxy)?;
        let mut set = ConfigSet { seq: seq.0, ..ConfigSet::default() };
        for name in self.everyone.iter().chain(self.by_account.of(account)) {
            set.resources.insert(name.clone(), self.entry(&ResourceKey::shared(name.clone()))?);
        }
        for name in self.by_proxy.of(proxy) {
            set.resources.insert(name.clone(), self.entry(&ResourceKey::of(proxy.clone(), name.clone()))?);
        }
        Some(set)
    }

    /// A digest of all resources with their versions and audiences, and of all proxies.
    pub fn digest(&self) -> Digest {
        let mut all = self.resources.members();
        all.join(self.proxies.members());
        all.digest()
    }

    /// Hashes what changed since the last call, so that the digest costs nothing before the next change.
    pub fn settle_digest(&mut self) {
        self.resources.settle();
        self.proxies.settle();
    }

    fn entry(&self, key: &ResourceKey) -> Option<Entry> {
        let published = self.resources.get(key)?;
        Some(Entry { version: published.version.0, bytes: published.told.bytes.clone() })
    }

    fn note(&mut self, proxy: &ObjectName, name: &ResourceName, entry: Option<Entry>, trace: TraceContext) {
        if !self.followed.contains(proxy) {
            return;
        }
        let pending = self.pending.entry(proxy.clone()).or_default();
        pending.changed.insert(name.clone(), entry);
        if trace != TraceContext::default() {
            pending.trace = trace;
        }
    }

    fn resource(&mut self, seq: Seq, Change { key, told }: &Change, trace: TraceContext) {
        let before = self.resources.get(key);
        let bytes_changed = before.map(|published| &published.told.bytes) != told.as_ref().map(|told| &told.bytes);
        let version = before.filter(|_| !bytes_changed).map_or(seq, |published| published.version);
        let before = self.resources.set(key, told.clone().map(|told| Published { version, told }));
        let entry = told.as_ref().map(|told| Entry { version: version.0, bytes: told.bytes.clone() });
        if let Some(proxy) = &key.proxy {
            match (&before, told) {
                (None, Some(_)) => {
                    self.by_proxy.insert(proxy, key.name.clone());
                }
                (Some(_), None) => self.by_proxy.remove(proxy, &key.name),
                _ => {}
            }
            if self.proxies.get(proxy).is_some() {
                self.note(proxy, &key.name, entry, trace);
            }
            return;
        }
        let before = before.as_ref().map(|published| &published.told.audience);
        let after = told.as_ref().map(|told| &told.audience);
        self.reindex(&key.name, before, after);
        for (proxy, account) in self.candidates(before, after) {
            let was = before.is_some_and(|audience| audience.contains(&account));
            let is = after.is_some_and(|audience| audience.contains(&account));
            if is && (!was || bytes_changed) {
                self.note(&proxy, &key.name, entry.clone(), trace);
            } else if was && !is {
                self.note(&proxy, &key.name, None, trace);
            }
        }
    }

    fn reindex(&mut self, name: &ResourceName, before: Option<&Audience>, after: Option<&Audience>) {
        if before == after {
            return;
        }
        match before {
            None => {}
            Some(Audience::Everyone) => drop(self.everyone.remove(name)),
            Some(Audience::Accounts(accounts)) => {
                for account in accounts.iter() {
                    self.by_account.remove(account, name);
                }
            }
        }
        match after {
            None => {}
            Some(Audience::Everyone) => drop(self.everyone.insert(name.clone())),
            Some(Audience::Accounts(accounts)) => {
                for account in accounts.iter() {
                    self.by_account.insert(account, name.clone());
                }
            }
        }
    }

    /// The proxies of either audience, as far as they are followed.
    fn candidates(&self, before: Option<&Audience>, after: Option<&Audience>) -> Vec<(ObjectName, Account)> {
        if self.followed == Followed::Nobody {
            return Vec::new();
        }
        let mut accounts: BTreeSet<&Account> = BTreeSet::new();
        for audience in before.into_iter().chain(after) {
            match audience {
                Audience::Everyone => {
                    return self.all_proxies().map(|(proxy, account)| (proxy.clone(), account.clone())).collect();
                }
                Audience::Accounts(members) => accounts.extend(members.iter()),
            }
        }
        let mut candidates = Vec::new();
        for account in accounts {
            let proxies = self.proxies_by_account.of(account);
            candidates.extend(proxies.map(|proxy| (proxy.clone(), account.clone())));
        }
        candidates
    }

    /// Follows pods that got a proxy, lost it, or are somebody else now.
    fn proxies(&mut self, catalog: &Catalog, delta: &Delta, trace: TraceContext) {
        let mut touched: Few<&ObjectName> = delta.pods.keys().collect();
        for namespace in delta.namespaces.keys() {
            touched.extend(catalog.pods_in(namespace.name()));
        }
        if delta.membership_changed() {
            touched.extend(catalog.pods().keys());
        }
        for proxy in touched {
            let after = catalog.meshed_pod(proxy).map(|pod| &pod.account);
            let before = self.proxies.get(proxy);
            if before == after {
                continue;
            }
            let (before, after) = (before.cloned(), after.cloned());
            let followed = self.followed.contains(proxy);
            let told = before.as_ref().filter(|_| followed);
            let had: BTreeSet<ResourceName> = told.iter().flat_map(|account| self.shared_names(account)).collect();
            if let Some(account) = before {
                self.proxies.set(proxy, None);
                if followed {
                    self.left.insert(proxy.clone());
                }
                self.proxies_by_account.remove(&account, proxy);
            }
            let Some(account) = after else {
                // What it has not been told yet is no configuration of any version: at this seq it has none.
                self.pending.remove(proxy);
                continue;
            };
            self.proxies.set(proxy, Some(account.clone()));
            self.proxies_by_account.insert(&account, proxy.clone());
            if followed {
                let has: BTreeSet<ResourceName> = self.shared_names(&account).collect();
                for name in had.difference(&has) {
                    self.note(proxy, name, None, trace);
                }
                for name in &has {
                    let entry = self.entry(&ResourceKey::shared(name.clone()));
                    self.note(proxy, name, entry, trace);
                }
            }
        }
    }

    fn shared_names(&self, account: &Account) -> impl Iterator<Item = ResourceName> {
        self.everyone.iter().chain(self.by_account.of(account)).cloned()
    }
}

/// A proxy and its service account.
impl digest::Entry<ObjectName> for Account {
    fn member(&self, proxy: &ObjectName) -> Member {
        Member::of([&b"proxy"[..], proxy.text().as_bytes(), self.text().as_bytes()])
    }
}
