//! What two moments differ in, and the records in between that led there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use fsm_actors::Core;
use fsm_actors::catalog::{Object, ObjectKey, ObjectName};
use fsm_actors::publish::Followed;
use fsm_proxy_config::{ConfigSet, Entry, ResourceName};
use fsm_store::Seq;
use serde::Serialize;
use serde_json::Value;

use super::End;
use crate::log::{History, time_text};
use crate::replay::cause::{Cause, Trail};
use crate::replay::differing::{essence, resource_json};
use crate::replay::past::{Past, Seen, replay};
use crate::replay::proxies;

/// All differences.
#[derive(Debug, Serialize)]
pub(super) struct Changes {
    pub(super) from: End,
    pub(super) to: End,
    /// The only one that was asked for.
    pub(super) proxy: Option<ObjectName>,
    pub(super) proxies: Vec<ProxyChange>,
    pub(super) resources: Vec<ResourceChange>,
    /// Left out if only one proxy was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) objects: Option<Vec<ObjectChange>>,
}

/// A proxy that is new, or gone.
#[derive(Debug, Serialize)]
pub(super) struct ProxyChange {
    pub(super) proxy: ObjectName,
    pub(super) change: Kind,
    pub(super) causes: Vec<Cause>,
}

/// A resource that is not the same for some proxies.
#[derive(Debug, Serialize)]
pub(super) struct ResourceChange {
    pub(super) name: String,
    pub(super) change: Kind,
    /// Who is told so.
    pub(super) proxies: Vec<ObjectName>,
    pub(super) causes: Vec<Cause>,
    pub(super) before: Value,
    pub(super) after: Value,
}

/// An object of Kubernetes that is not the same.
#[derive(Debug, Serialize)]
pub(super) struct ObjectChange {
    /// Its kind and name.
    pub(super) object: String,
    pub(super) change: Kind,
    pub(super) causes: Vec<Cause>,
    /// Without what changes with every write: resourceVersion, generation, managedFields.
    pub(super) before: Value,
    pub(super) after: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Added,
    Changed,
    Removed,
}

impl Kind {
    fn of<T>(before: Option<&T>, after: Option<&T>) -> Self {
        match (before, after) {
            (None, _) => Self::Added,
            (_, None) => Self::Removed,
            _ => Self::Changed,
        }
    }
}

/// A resource before and after: proxies for which all of it is the same have the same change.
type Alike<'a> = (&'a ResourceName, Option<Bytes>, Option<Bytes>);

/// What is noted on the way.
struct Noted {
    /// The state at the first moment.
    from: Core,
    begin: End,
    trail: Trail,
    causes: BTreeMap<Seq, Cause>,
    objects: BTreeMap<ObjectKey, Vec<Seq>>,
    told: BTreeMap<(ResourceName, ObjectName), Vec<Seq>>,
    proxies: BTreeMap<ObjectName, Vec<Seq>>,
    there: BTreeSet<ObjectName>,
}

impl Changes {
    /// The differences between two moments; of one proxy only, if one is named.
    pub(super) async fn between(history: &History, from: Seq, to: Seq, proxy: Option<&str>) -> anyhow::Result<Self> {
        let (past, noted) = replay(history, from, to, Noted::begin, |noted, core, seen| {
            noted.see(core, seen);
            ControlFlow::Continue(())
        })
        .await?;
        let only = match proxy {
            // A proxy may be gone at the second moment: then the first one knows it.
            Some(text) => {
                Some(match proxies::find_if_there(&past.core, text).or(proxies::find_if_there(&noted.from, text)) {
                    Some(proxy) => proxy,
                    None => proxies::find(&past, text)?,
                })
            }
            None => None,
        };
        Ok(noted.changes(&past, only))
    }
}

impl Noted {
    fn begin(past: &mut Past) -> Self {
        let from = past.core.clone();
        past.core.follow(Followed::Everybody);
        Self {
            begin: End { seq: from.seq(), time: time_text(past.time) },
            trail: Trail::new(&from),
            there: from.proxies().cloned().collect(),
            from,
            causes: BTreeMap::new(),
            objects: BTreeMap::new(),
            told: BTreeMap::new(),
            proxies: BTreeMap::new(),
        }
    }

    fn see(&mut self, core: &mut Core, Seen { record, effect }: Seen<'_>) {
        let steps = self.trail.step(core, record);
        let mut counts = false;
        for step in &steps {
            self.objects.entry(step.key.clone()).or_default().push(record.seq);
            counts = true;
        }
        for update in core.take_updates() {
            let names = update.update.changed.into_keys().chain(update.update.removed);
            for name in names {
                self.told.entry((name, update.proxy.clone())).or_default().push(record.seq);
                counts = true;
            }
        }
        if !effect.delta.pods.is_empty() || !effect.delta.namespaces.is_empty() || effect.delta.mesh.is_some() {
            let there: BTreeSet<ObjectName> = core.proxies().cloned().collect();
            for proxy in self.there.symmetric_difference(&there) {
                self.proxies.entry(proxy.clone()).or_default().push(record.seq);
                counts = true;
            }
            self.there = there;
        }
        if counts {
            self.causes.insert(record.seq, Cause::new(record, &steps));
        }
    }

    fn changes(self, past: &Past, only: Option<ObjectName>) -> Changes {
        let to = End { seq: past.core.seq(), time: time_text(past.time) };
        let proxies = self.proxy_changes(&past.core, only.as_ref());
        let resources = self.resource_changes(&past.core, only.as_ref());
        let objects = only.is_none().then(|| self.object_changes(&past.core));
        Changes { from: self.begin, to, proxy: only, proxies, resources, objects }
    }

    fn causes_of(&self, seqs: &[Seq]) -> Vec<Cause> {
        seqs.iter().filter_map(|seq| self.causes.get(seq)).cloned().collect()
    }

    fn proxy_changes(&self, core: &Core, only: Option<&ObjectName>) -> Vec<ProxyChange> {
        let asked = self.proxies.iter().filter(|(proxy, _)| only.is_none_or(|only| only == *proxy));
        let changes = asked.filter_map(|(proxy, seqs)| {
            let (before, after) = (self.from.account_of(proxy), core.account_of(proxy));
            // Gone and back.
            (before != after).then(|| ProxyChange {
                proxy: proxy.clone(),
                change: Kind::of(before, after),
                causes: self.causes_of(seqs),
            })
        });
        changes.collect()
    }

    fn resource_changes(&self, core: &Core, only: Option<&ObjectName>) -> Vec<ResourceChange> {
        let config = |core: &Core, proxy: &ObjectName| core.config_of(proxy).unwrap_or_default();
        let mut configs: BTreeMap<&ObjectName, (ConfigSet, ConfigSet)> = BTreeMap::new();
        // What is the same change for several proxies is one change.
        let mut together: BTreeMap<Alike<'_>, (Vec<ObjectName>, Vec<Seq>)> = BTreeMap::new();
        let asked = match only {
            Some(only) => vec![only],
            // Proxies that are new or gone are told, or were told, everything: that is one change, not many.
            None => {
                let both = self.from.proxies().filter(|proxy| core.account_of(proxy) == self.from.account_of(proxy));
                both.collect()
            }
        };
        for proxy in asked {
            configs.insert(proxy, (config(&self.from, proxy), config(core, proxy)));
        }
        for (proxy, (before, after)) in &configs {
            let names: BTreeSet<&ResourceName> = before.resources.keys().chain(after.resources.keys()).collect();
            for name in names {
                let (one, other) = (before.resources.get(name), after.resources.get(name));
                if one.map(|entry| &entry.bytes) == other.map(|entry| &entry.bytes) {
                    continue;
                }
                let bytes = |entry: Option<&Entry>| entry.map(|entry| entry.bytes.clone());
                let (proxies, seqs) = together.entry((name, bytes(one), bytes(other))).or_default();
                proxies.push((*proxy).clone());
                let of_proxy = self.told.get(&(name.clone(), (*proxy).clone()));
                // Without an update of its own it came or went with its proxy.
                seqs.extend(of_proxy.or(self.proxies.get(*proxy)).into_iter().flatten());
            }
        }
        let changes = together.into_iter().map(|((name, before, after), (proxies, mut seqs))| {
            seqs.sort();
            seqs.dedup();
            ResourceChange {
                name: name.to_string(),
                change: Kind::of(before.as_ref(), after.as_ref()),
                proxies,
                causes: self.causes_of(&seqs),
                before: resource_json(name, before.as_ref()),
                after: resource_json(name, after.as_ref()),
            }
        });
        changes.collect()
    }

    fn object_changes(&self, core: &Core) -> Vec<ObjectChange> {
        let json = |object: Option<&Object>| object.map_or(Value::Null, |object| essence(object.json.get()));
        let changes = self.objects.iter().filter_map(|(key, seqs)| {
            let (one, other) = (self.from.catalog().objects().get(key), core.catalog().objects().get(key));
            let (before, after) = (json(one), json(other));
            (before != after).then(|| ObjectChange {
                object: format!("{} {}", key.0, key.1),
                change: Kind::of(one, other),
                causes: self.causes_of(seqs),
                before,
                after,
            })
        });
        changes.collect()
    }
}
