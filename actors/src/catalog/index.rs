//! Who refers to whom, so that the cost of a change follows the change.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::delta::{Changed, ChangedByName, Delta};
use super::few::Few;
use super::map::{Key, PersistentMap};
use super::view::{Account, Endpoint, Exchanged, Pod, Rule, Slice, Split, Target};
use super::{ObjectName, Table};

/// A many-to-many relation, looked up by its left side.
#[derive(Clone, Debug, Default)]
pub struct Relation(PersistentMap<(ObjectName, ObjectName), ()>);

/// What one name is related to lies together and in order.
impl Key for (ObjectName, ObjectName) {
    fn place(&self, other: &Self) -> Ordering {
        self.0.place(&other.0).then_with(|| self.1.cmp(&other.1))
    }
}

impl Relation {
    /// Everything that `left` is related to, in order.
    pub fn of<'a>(&'a self, left: &'a ObjectName) -> impl Iterator<Item = &'a ObjectName> {
        let pairs = self.0.range_where(move |pair| pair.0.place(left).is_lt()).map(|(pair, ())| pair);
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

    /// Follows the pods of a slice; gives those that it has no more, and those that it has now.
    fn follow_pods<'a>(
        &mut self,
        name: &ObjectName,
        before: Option<&'a Slice>,
        after: Option<&'a Slice>,
    ) -> (Few<&'a ObjectName>, Few<&'a ObjectName>) {
        let Exchanged { gone, new } = Exchanged::between(before, after);
        let lacks = |slice: Option<&Slice>, pod: &ObjectName| slice.is_none_or(|slice| !slice.has_pod(pod));
        let pods = |endpoints: &[&'a Endpoint], other: Option<&Slice>| -> Few<&'a ObjectName> {
            let pods = endpoints.iter().filter_map(|endpoint| endpoint.pod.as_ref());
            pods.filter(|pod| lacks(other, pod)).collect()
        };
        let (gone, new) = (pods(&gone, after), pods(&new, before));
        for pod in &gone {
            self.replace(name, Some(pod), None);
        }
        for pod in &new {
            self.replace(name, None, Some(pod));
        }
        (gone, new)
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
    /// The service accounts of the pods in an EndpointSlice, and how many pods of each there are.
    accounts_by_slice: PersistentMap<ObjectName, Arc<BTreeMap<Account, u32>>>,
}

impl Index {
    /// Follows a delta; `pods` and `slices` are as they are after it. Notes in it behind which services there are others now.
    pub(super) fn follow(&mut self, delta: &mut Delta, pods: &Table<Pod>, slices: &Table<Slice>) {
        for (name, changed) in delta.pods.iter() {
            let was = changed.before.as_ref().map(|pod| &pod.account);
            let is = changed.after.as_ref().map(|pod| &pod.account);
            if was == is {
                continue;
            }
            self.pods_by_account.replace(name, was, is);
            let of_pod: Few<ObjectName> = self.slices_by_pod.of(name).cloned().collect();
            for slice in of_pod {
                if self.recount(&slice, was, is)
                    && let Some(slice) = slices.get(&slice)
                {
                    delta.regrouped.insert(slice.service.clone());
                }
            }
        }
        for (name, changed) in delta.slices.iter() {
            let (before, after) = (changed.before.as_deref(), changed.after.as_deref());
            let (gone, new) = self.slices_by_pod.follow_pods(name, before, after);
            let (was, is) = (before.map(|slice| &slice.service), after.map(|slice| &slice.service));
            if was != is {
                self.slices_by_service.replace(name, was, is);
                delta.regrouped.extend(was.into_iter().chain(is).cloned());
            }
            let Some(after) = after else {
                self.accounts_by_slice.remove(name);
                continue;
            };
            let account = |pod: &ObjectName| pods.get(pod).map(|pod| &pod.account);
            let mut others = false;
            for pod in new {
                others |= self.recount(name, None, account(pod));
            }
            for pod in gone {
                others |= self.recount(name, account(pod), None);
            }
            if others {
                delta.regrouped.insert(after.service.clone());
            }
        }
        self.follow_policy(&delta.splits, &delta.targets);
    }

    /// A pod in a slice was of one account, and is of another now; gives whether the slice has other accounts than before.
    fn recount(&mut self, slice: &ObjectName, was: Option<&Account>, is: Option<&Account>) -> bool {
        if was == is {
            return false;
        }
        if !self.accounts_by_slice.contains_key(slice) {
            self.accounts_by_slice.insert(slice.clone(), Arc::default());
        }
        let Some(counts) = self.accounts_by_slice.get_mut(slice) else { return false };
        let counted = Arc::make_mut(counts);
        let mut others = false;
        if let Some(is) = is {
            let count = counted.entry(is.clone()).or_insert(0);
            others |= *count == 0;
            *count += 1;
        }
        if let Some(was) = was
            && let Some(count) = counted.get_mut(was)
        {
            *count -= 1;
            if *count == 0 {
                counted.remove(was);
                others = true;
            }
        }
        others
    }

    fn follow_policy(&mut self, splits: &ChangedByName<Split>, targets: &ChangedByName<Target>) {
        for (name, changed) in splits.iter() {
            self.splits_by_apex.update(name, changed, |split| BTreeSet::from([split.apex.clone()]));
            let backends = |split: &Split| split.backends.iter().map(|(service, _)| service.clone()).collect();
            self.splits_by_backend.update(name, changed, backends);
            self.splits_by_group.update(name, changed, |split| split.route_groups.clone());
        }
        for (name, changed) in targets.iter() {
            self.targets_by_destination.update(name, changed, |target| BTreeSet::from([target.destination.clone()]));
            self.targets_by_group.update(name, changed, |target| target.route_groups().cloned().collect());
            self.targets_by_tcp_route.update(name, changed, |target| target.tcp_routes().cloned().collect());
        }
    }

    /// The service accounts of the pods behind a service, ready or not.
    pub fn accounts_of_service(&self, service: &ObjectName) -> Few<&Account> {
        let slices = self.slices_by_service.of(service);
        slices.filter_map(|slice| self.accounts_by_slice.get(slice)).flat_map(|accounts| accounts.keys()).collect()
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
