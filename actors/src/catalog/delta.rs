//! What one record changed in the catalog.

use std::sync::Arc;

use smallvec::SmallVec;

use super::ObjectName;
use super::few::Few;
use super::mesh::Mesh;
use super::view::{Namespace, Pod, RouteGroup, Service, Slice, Split, Target, TcpPorts};

/// Something that changed: it is new if there is no `before`, and gone if there is no `after`.
#[derive(Debug)]
pub struct Changed<T> {
    pub before: Option<Arc<T>>,
    pub after: Option<Arc<T>>,
}

impl<T> Changed<T> {
    /// Both sides, as far as they are there.
    pub fn sides(&self) -> impl Iterator<Item = &T> {
        self.before.iter().chain(&self.after).map(|side| &**side)
    }
}

impl<T> Clone for Changed<T> {
    fn clone(&self) -> Self {
        Self { before: self.before.clone(), after: self.after.clone() }
    }
}

/// Changed views by name, in order. Hardly any record changes more than one.
#[derive(Clone, Debug)]
pub struct ChangedByName<T>(SmallVec<[(ObjectName, Changed<T>); 1]>);

impl<T> ChangedByName<T> {
    /// Whether none has changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes the change of a view, in the place of what was noted of it before.
    pub fn insert(&mut self, name: ObjectName, changed: Changed<T>) {
        if self.0.last().is_none_or(|(last, _)| *last < name) {
            self.0.push((name, changed));
            return;
        }
        match self.0.binary_search_by(|(its, _)| its.cmp(&name)) {
            Ok(place) => self.0[place].1 = changed,
            Err(place) => self.0.insert(place, (name, changed)),
        }
    }

    /// What changed, and how.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Changed<T>)> {
        self.0.iter().map(|(name, changed)| (name, changed))
    }

    /// What changed.
    pub fn keys(&self) -> impl Iterator<Item = &ObjectName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// How something changed.
    pub fn values(&self) -> impl Iterator<Item = &Changed<T>> {
        self.0.iter().map(|(_, changed)| changed)
    }
}

impl<T> Default for ChangedByName<T> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

/// What changed from one version of the catalog to the next. Only views count: an object whose view is equal has not changed.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    pub mesh: Option<Changed<Mesh>>,
    pub namespaces: ChangedByName<Namespace>,
    pub pods: ChangedByName<Pod>,
    pub services: ChangedByName<Service>,
    pub slices: ChangedByName<Slice>,
    pub splits: ChangedByName<Split>,
    pub targets: ChangedByName<Target>,
    pub route_groups: ChangedByName<RouteGroup>,
    pub tcp_routes: ChangedByName<TcpPorts>,
    /// Services behind which there are pods of other service accounts than before.
    pub regrouped: Few<ObjectName>,
    /// The services whose ports, membership or audience this may have touched.
    pub touched: Few<ObjectName>,
}

impl Delta {
    /// Whether nothing changed that anything is computed from.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.pods.is_empty()
            && self.services.is_empty()
            && self.slices.is_empty()
            && !self.policy_changed()
    }

    /// Whether anything changed that says who may do what; other changes have to do with it only by the services that they touch.
    pub fn policy_changed(&self) -> bool {
        self.mesh.is_some()
            || !self.splits.is_empty()
            || !self.targets.is_empty()
            || !self.route_groups.is_empty()
            || !self.tcp_routes.is_empty()
    }

    /// The change of the mesh's settings, if it touches who belongs to the mesh or how its members are named.
    pub fn membership_changed(&self) -> bool {
        self.mesh.as_ref().is_some_and(|changed| match (&changed.before, &changed.after) {
            (Some(before), Some(after)) => !before.same_membership(after),
            _ => true,
        })
    }

    /// Whether permissive mode was switched.
    pub fn permissive_changed(&self) -> bool {
        self.mesh.as_ref().is_some_and(|changed| {
            let permissive = |mesh: &Option<Arc<Mesh>>| mesh.as_ref().is_some_and(|mesh| mesh.is_permissive());
            permissive(&changed.before) != permissive(&changed.after)
        })
    }
}
