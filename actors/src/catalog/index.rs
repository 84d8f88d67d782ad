//! Who refers to whom, so that the cost of a change follows the change.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::delta::{Changed, ChangedByName, Delta};
use super::map::PersistentMap;
use super::view::{Account, Pod, Rule, Slice, Split, Target};
use super::{ObjectName, Table};

/// A many-to-many relation, looked up by its left side.
#[derive(Clone, Debug, Default)]
pub struct Relation(PersistentMap<(ObjectName, ObjectName), ()>);

impl Relation {
    /// Everything that `left` is related to, in order.
    pub fn of<'a>(&'a self, left: &'a ObjectName) -> impl Iterator<Item = &'a ObjectName> {
        let first = (left.clone(), ObjectName::default());
        self.0.range_from(&first).map(|(pair, ())| pair).take_while(move |pair| pair.0 == *left).map(|pair| &pair.1)
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
    /// Follows a delta; `pods` and `slices` are as they are after it.
    pub(super) fn follow(&mut self, delta: &Delta, pods: &Table<Pod>, slices: &Table<Slice>) {
        let mut stale: BTreeSet<ObjectName> = BTreeSet::new();
        for (name, changed) in &delta.slices {
            self.slices_by_service.update(name, changed, |slice| BTreeSet::from([slice.service.clone()]));
            self.slices_by_pod.update(name, changed, |slice| slice.pods().map(|(pod, _)| pod).collect());
            stale.insert(name.clone());
        }
        for (name, changed) in &delta.pods {
            self.pods_by_account.update(name, changed, |pod| BTreeSet::from([pod.account.clone()]));
            let account = |side: &Option<Arc<Pod>>| side.as_ref().map(|pod| pod.account.clone());
            if account(&changed.before) != account(&changed.after) {
                stale.extend(self.slices_by_pod.of(name).cloned());
            }
        }
        for name in stale {
            match slices.get(&name) {
                None => self.accounts_by_slice.remove(&name),
                Some(slice) => {
                    let accounts = slice.pods().filter_map(|(pod, _)| Some(pods.get(&pod)?.account.clone()));
                    self.accounts_by_slice.insert(name, Arc::new(accounts.collect()))
                }
            };
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
