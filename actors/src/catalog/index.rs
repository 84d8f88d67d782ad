//! Who refers to whom, so that the cost of a change follows the change.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::delta::{Changed, ChangedByName, Delta};
use super::map::PersistentMap;
use super::view::{Account, Exchanged, Pod, Rule, Slice, Split, Target};
use super::{ObjectName, Table};

/// A many-to-many relation, looked up by its left side.
#[derive(Clone, Debug, Default)]
pub struct Relation(PersistentMap<(ObjectName, ObjectName), ()>);

impl Relation {
    /// Everything that `left` is related to, in order.
    pub fn of<'a>(&'a self, left: &'a ObjectName) -> impl Iterator<Item = &'a ObjectName> {
        let pairs = self.0.range_where(move |pair| pair.0 < *left).map(|(pair, ())| pair);
        pairs.take_while(move |pair| pair.0 == *left).map(|pair| &pair.1)
    }

    /// `name` belonged to `before`, and belongs to `after` now.
    fn replace(&mut self, name: &ObjectName, before: Option<&ObjectName>, after: Option<&ObjectName>) {
        if let Some(before) = before {
            self.0.remove(&(before.clone(), name.clone()));
        }
        if let Some(after) = after {
            self.0.insert((after.clone(), name.clone()), ());
        }
    }

    /// Follows the pods of a slice; tells whether they are others.
    fn follow_pods(&mut self, name: &ObjectName, before: Option<&Slice>, after: Option<&Slice>) -> bool {
        let Exchanged { gone, new } = Exchanged::between(before, after);
        let lacks = |slice: Option<&Slice>, pod: &ObjectName| slice.is_none_or(|slice| !slice.has_pod(pod));
        let gone: BTreeSet<&ObjectName> = gone.iter().filter_map(|endpoint| endpoint.pod.as_ref()).collect();
        let gone: Vec<&ObjectName> = gone.into_iter().filter(|pod| lacks(after, pod)).collect();
        let new: BTreeSet<&ObjectName> = new.iter().filter_map(|endpoint| endpoint.pod.as_ref()).collect();
        let new: Vec<&ObjectName> = new.into_iter().filter(|pod| lacks(before, pod)).collect();
        for pod in &gone {
            self.replace(name, Some(pod), None);
        }
        for pod in &new {
            self.replace(name, None, Some(pod));
        }
        before.is_some() != after.is_some() || !gone.is_empty() || !new.is_empty()
    }

    fn update<T>(&mut self, name: &ObjectName, changed: &Changed<T>, keys: impl Fn(&T) -> BTreeSet<ObjectName>) {
        let side = |side: &Option<Arc<T>>| side.as_deref().map(&keys).unwrap_or_default();
        let (before, after) = (side(&changed.before), side(&changed.after));
        for key in before.difference(&after) {
            self.0.remove(&(key.clone(), name.clone()));
        }
        for key in after.difference(&before) {
            self.0.insert((key.clone(), name.clone()), ());
        }
    }
}

/// The relations of one version of the catalog.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Service to its EndpointSlices.
    pub slices_by_service: Relation,
    /// Pod to the EndpointSlices that name it.
    pub slices_by_pod: Relation,
    pub pods_by_account: Relation,
    /// Service to the TrafficSplits over it.
    pub splits_by_apex: Relation,
    /// Service to the TrafficSplits that may send its way.
    pub splits_by_backend: Relation,
    /// HTTPRouteGroup to the TrafficSplits that it restricts.
    pub splits_by_group: Relation,
    pub targets_by_destination: Relation,
    /// HTTPRouteGroup to the TrafficTargets with a rule that names it.
    pub targets_by_group: Relation,
    /// TCPRoute to the TrafficTargets with a rule that names it.
    pub targets_by_tcp_route: Relation,
    /// The service accounts of the pods in an EndpointSlice.
    accounts_by_slice: PersistentMap<ObjectName, Arc<BTreeSet<Account>>>,
}

impl Index {
    /// Follows a delta; `pods` and `slices` are as they are after it. Notes in it behind which services there are others now.
    pub(super) fn follow(&mut self, delta: &mut Delta, pods: &Table<Pod>, slices: &Table<Slice>) {
        let mut stale: BTreeSet<ObjectName> = BTreeSet::new();
        for (name, changed) in &delta.slices {
            let (before, after) = (changed.before.as_deref(), changed.after.as_deref());
            let others = self.slices_by_pod.follow_pods(name, before, after);
            let service = |slice: Option<&Slice>| slice.map(|slice| slice.service.clone());
            let (was, is) = (service(before), service(after));
            if was != is {
                self.slices_by_service.replace(name, was.as_ref(), is.as_ref());
                delta.regrouped.extend(was.into_iter().chain(is));
            }
            if others {
                stale.insert(name.clone());
            }
        }
        for (name, changed) in &delta.pods {
            let account = |side: &Option<Arc<Pod>>| side.as_ref().map(|pod| pod.account.clone());
            let (was, is) = (account(&changed.before), account(&changed.after));
            if was != is {
                self.pods_by_account.replace(name, was.as_ref(), is.as_ref());
                stale.extend(self.slices_by_pod.of(name).cloned());
            }
        }
        for name in stale {
            let before = self.accounts_by_slice.get(&name);
            let Some(slice) = slices.get(&name) else {
                self.accounts_by_slice.remove(&name);
                continue;
            };
            let accounts: BTreeSet<&Account> =
                slice.pods().filter_map(|(pod, _)| Some(&pods.get(pod)?.account)).collect();
            if before.is_none_or(|before| !before.iter().eq(accounts.iter().copied())) {
                delta.regrouped.insert(slice.service.clone());
                self.accounts_by_slice.insert(name, Arc::new(accounts.into_iter().cloned().collect()));
            }
        }
        self.follow_policy(&delta.splits, &delta.targets);
    }

    fn follow_policy(&mut self, splits: &ChangedByName<Split>, targets: &ChangedByName<Target>) {
        for (name, changed) in splits {
            self.splits_by_apex.update(name, changed, |split| BTreeSet::from([split.apex.clone()]));
            let backends = |split: &Split| split.backends.iter().map(|(service, _)| service.clone()).collect();
            self.splits_by_backend.update(name, changed, backends);
            self.splits_by_group.update(name, changed, |split| split.route_groups.clone());
        }
        for (name, changed) in targets {
            self.targets_by_destination.update(name, changed, |target| BTreeSet::from([target.destination.clone()]));
            self.targets_by_group.update(name, changed, |target| target.route_groups().cloned().collect());
            self.targets_by_tcp_route.update(name, changed, |target| target.tcp_routes().cloned().collect());
        }
    }

    /// The service accounts of the pods behind a service, ready or not.
    pub fn accounts_of_service(&self, service: &ObjectName) -> BTreeSet<&Account> {
        let slices = self.slices_by_service.of(service);
        slices.filter_map(|slice| self.accounts_by_slice.get(slice)).flat_map(|accounts| accounts.iter()).collect()
    }
}

impl Target {
    /// The HTTPRouteGroups that its rules name.
    pub fn route_groups(&self) -> impl Iterator<Item = &ObjectName> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Http { group, .. } => Some(group),
            Rule::Tcp { .. } => None,
        })
    }

    /// The TCPRoutes that its rules name.
    pub fn tcp_routes(&self) -> impl Iterator<Item = &ObjectName> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Tcp { route } => Some(route),
            Rule::Http { .. } => None,
        })
    }
}
