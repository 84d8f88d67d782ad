//! The read model that all concerns share: the objects of the mesh as of one seq, and who refers to whom.
//!
//! [`Catalog::apply`] takes one fact and says what changed. A clone is a version: it shares all that does not change, costs a few
//! pointers, and stays as it is while the original moves on.

mod actor;
mod delta;
mod few;
mod index;
mod keys;
mod map;
mod mesh;
mod name;
mod objects_digest;
mod proxy;
mod reach;
mod restore;
#[cfg(test)]
mod tests;
pub mod view;
mod young;

use std::borrow::Cow;
use std::sync::Arc;

use fsm_api::{KindInfo, MeshConfig, Validate, kinds};
use fsm_proxy_config::Digest;
use fsm_store::Seq;

pub use actor::{Applied, AppliedStep, Batch, CatalogActor, CatalogMachine};
pub use delta::{Changed, ChangedByName, Delta};
pub use few::Few;
pub use index::{Index, Relation};
pub use map::{Key, PersistentMap};
pub use mesh::Mesh;
pub use name::{InvalidObjectName, ObjectName};
pub use proxy::{Proxies, ProxyStatus};
pub use reach::Audience;
pub(crate) use restore::Remains;

use crate::Json;
use crate::digest::Member;
use crate::fact::{ControllerStarted, Fact, ObjectChange, ObjectFact, Relist, RelistPhase};
use objects_digest::ObjectsDigest;
use view::{Namespace, Pod, RouteGroup, Service, Slice, Split, Target, TcpPorts, Unusable};
use young::Young;

/// Views by name.
pub type Table<T> = PersistentMap<ObjectName, Arc<T>>;

/// A kind (`<apiVersion>/<Kind>`) and the name of an object of it.
pub type ObjectKey = (Gvk, ObjectName);

/// `<apiVersion>/<Kind>`; of a kind that is watched it costs nothing to have.
pub type Gvk = Cow<'static, str>;

/// An object as last seen.
#[derive(Clone, Debug)]
pub struct Object {
    /// The record that it was last seen in.
    pub seq: Seq,
    pub json: Json,
    /// Its part in the digest of all objects, if it is counted there.
    counted: Option<Member>,
}

impl Object {
    /// An object as a record has it.
    fn new(seq: Seq, json: Json) -> Self {
        Self { seq, json, counted: None }
    }
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    seq: Seq,
    mesh: Arc<Mesh>,
    objects: PersistentMap<ObjectKey, Object>,
    /// Of `objects`.
    digest: ObjectsDigest,
    /// Lists under way: the objects of a kind that are not named yet.
    relists: PersistentMap<Gvk, PersistentMap<ObjectName, ()>>,
    /// Objects that count as absent, and why.
    unusable: PersistentMap<ObjectKey, Arc<Unusable>>,
    mesh_configs: Table<MeshConfig>,
    namespaces: Table<Namespace>,
    pods: Table<Pod>,
    services: Table<Service>,
    slices: Table<Slice>,
    splits: Table<Split>,
    targets: Table<Target>,
    route_groups: Table<RouteGroup>,
    tcp_routes: Table<TcpPorts>,
    index: Index,
    proxies: Proxies,
    young: Young,
}

impl Catalog {
    /// The last record that went into this version.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Mesh-wide settings.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The same, to keep.
    pub fn shared_mesh(&self) -> Arc<Mesh> {
        self.mesh.clone()
    }

    /// A namespace by its name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.find(|its| its.place_beside(name))
    }

    /// Namespaces by name.
    pub fn namespaces(&self) -> &Table<Namespace> {
        &self.namespaces
    }

    /// All pods; see [`Catalog::meshed_pod`].
    pub fn pods(&self) -> &Table<Pod> {
        &self.pods
    }

    /// All services; see [`Catalog::mesh_service`].
    pub fn services(&self) -> &Table<Service> {
        &self.services
    }

    /// EndpointSlices that belong to a service.
    pub fn slices(&self) -> &Table<Slice> {
        &self.slices
    }

    /// TrafficSplits.
    pub fn splits(&self) -> &Table<Split> {
        &self.splits
    }

    /// TrafficTargets.
    pub fn targets(&self) -> &Table<Target> {
        &self.targets
    }

    /// HTTPRouteGroups.
    pub fn route_groups(&self) -> &Table<RouteGroup> {
        &self.route_groups
    }

    /// TCPRoutes.
    pub fn tcp_routes(&self) -> &Table<TcpPorts> {
        &self.tcp_routes
    }

    /// Who refers to whom.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What proxies last said.
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Objects of every kind, as JSON, by kind and name.
    pub fn objects(&self) -> &PersistentMap<ObjectKey, Object> {
        &self.objects
    }

    /// Objects that got in although they cannot be used, and why. They count as absent; of a MeshConfig the last good version
    /// stays in force.
    pub fn unusable(&self) -> &PersistentMap<ObjectKey, Arc<Unusable>> {
        &self.unusable
    }

    /// Applies the fact of record `seq`, and says what changed.
    pub fn apply(&mut self, seq: Seq, fact: &Fact) -> Delta {
        assert!(seq > self.seq, "records come in order: {seq} after {}", self.seq);
        self.seq = seq;
        let mut delta = Delta::default();
        match fact {
            Fact::Object(fact) => self.apply_object(seq, fact, &mut delta),
            Fact::Relist(relist) => self.apply_relist(relist, &mut delta),
            Fact::ControllerStarted(started) => self.apply_started(started, &mut delta),
            Fact::Proxy(fact) => self.proxies.stream(fact),
            Fact::Ack(ack) => self.proxies.ack(ack),
            Fact::Nack(nack) => self.proxies.nack(nack),
            Fact::CertificateIssued(_)
            | Fact::PodAdmitted(_)
            | Fact::ControllerStopped(_)
            | Fact::StateDigest(_)
            | Fact::Unknown { .. } => {}
        }
        self.index.follow(&mut delta, &self.pods, &self.slices);
        delta.touched = self.touched_services(&delta);
        for pod in delta.pods.iter().filter(|(_, changed)| changed.after.is_none()).map(|(name, _)| name) {
            self.proxies.forget(pod);
        }
        self.grow_up();
        delta
    }

    fn apply_object(&mut self, seq: Seq, fact: &ObjectFact, delta: &mut Delta) {
        let kind = find_kind(&fact.gvk);
        let gvk = kind.map_or_else(|| fact.gvk.clone(), |kind| kind.gvk().into());
        let key: ObjectKey = (gvk, fact.name.clone());
        if let Some(unnamed) = self.relists.get(&key.0) {
            let mut unnamed = unnamed.clone();
            unnamed.remove(&key.1);
            self.relists.insert(key.0.clone(), unnamed);
        }
        match fact.change {
            ObjectChange::Applied => {
                self.view(kind, &key, Some(&fact.object), delta);
                self.put(&key, Object::new(seq, fact.object.clone()));
            }
            ObjectChange::Deleted => self.delete(kind, &key, delta),
        }
    }

    fn delete(&mut self, kind: Option<&'static KindInfo>, key: &ObjectKey, delta: &mut Delta) {
        if let Some(before) = self.objects.remove(key) {
            self.digest.removed(key, &before);
        }
        self.view(kind, key, None, delta);
    }

    fn put(&mut self, key: &ObjectKey, object: Object) {
        let is_part = object.json.is_part();
        let before = self.objects.insert(key.clone(), object);
        if is_part && !before.as_ref().is_some_and(|before| before.json.is_part()) {
            self.young.add(key);
        }
        self.digest.put(key, before.as_ref());
    }

    fn apply_relist(&mut self, relist: &Relist, delta: &mut Delta) {
        let gvk = canonical(&relist.gvk);
        match relist.phase {
            RelistPhase::Begin => {
                let mut unnamed = PersistentMap::default();
                for (_, name) in self.objects.of_kind(&gvk) {
                    unnamed.insert(name.clone(), ());
                }
                self.relists.insert(gvk, unnamed);
            }
            RelistPhase::End => {
                let gone = self.relists.remove(&gvk).unwrap_or_default();
                let kind = find_kind(&gvk);
                for name in gone.keys() {
                    self.delete(kind, &(gvk.clone(), name.clone()), delta);
                }
            }
        }
    }

    fn apply_started(&mut self, started: &ControllerStarted, delta: &mut Delta) {
        self.proxies.all_disconnected();
        self.set_mesh(started.clone(), delta);
    }

    fn set_mesh(&mut self, started: ControllerStarted, delta: &mut Delta) {
        let name = ObjectName::new(&started.mesh_namespace, &started.mesh_config);
        let config = self.mesh_configs.get(&name).map(|config| config.spec.clone()).unwrap_or_default();
        let after = Arc::new(Mesh { started, config });
        if after != self.mesh {
            let before = std::mem::replace(&mut self.mesh, after.clone());
            delta.mesh = Some(Changed { before: Some(before), after: Some(after) });
        }
    }

    /// Follows one object into the view of its kind; none if it is gone.
    fn view(&mut self, kind: Option<&'static KindInfo>, key: &ObjectKey, json: Option<&Json>, delta: &mut Delta) {
        let name = &key.1;
        let outcome = match kind {
            Some(&kinds::NAMESPACE) => set(&mut self.namespaces, name, json, view::namespace, &mut delta.namespaces),
            Some(&kinds::POD) => self.view_pod(name, json, delta),
            Some(&kinds::SERVICE) => set(&mut self.services, name, json, view::service, &mut delta.services),
            Some(&kinds::ENDPOINT_SLICE) => {
                let before = self.slices.get(name).cloned();
                let slice = json
                    .map(|json| view::slice(json, name.namespace(), before.as_deref()))
                    .transpose()
                    .map(Option::flatten);
                store(&mut self.slices, name, before, slice.map(|slice| slice.map(Arc::new)), &mut delta.slices)
            }
            Some(&kinds::TRAFFIC_SPLIT) => set(&mut self.splits, name, json, view::split, &mut delta.splits),
            Some(&kinds::TRAFFIC_TARGET) => set(&mut self.targets, name, json, view::target, &mut delta.targets),
            Some(&kinds::HTTP_ROUTE_GROUP) => {
                set(&mut self.route_groups, name, json, view::route_group, &mut delta.route_groups)
            }
            Some(&kinds::TCP_ROUTE) => set(&mut self.tcp_routes, name, json, view::tcp_route, &mut delta.tcp_routes),
            Some(&kinds::MESH_CONFIG) => self.view_mesh_config(name, json, delta),
            _ => Ok(()),
        };
        match outcome {
            Ok(()) => self.unusable.remove(key),
            Err(reason) => self.unusable.insert(key.clone(), Arc::new(reason)),
        };
    }

    fn view_pod(&mut self, name: &ObjectName, json: Option<&Json>, delta: &mut Delta) -> Result<(), Unusable> {
        let before = self.pods.get(name);
        let pod = match json.map(|json| view::pod(json, name.namespace(), before.map(|before| &**before))).transpose() {
            Ok(Some(None)) => return Ok(()),
            Ok(pod) => Ok(pod.flatten().map(Arc::new)),
            Err(reason) => Err(reason),
        };
        let before = before.cloned();
        // One that means the same may stand there in other words now.
        if let Ok(Some(pod)) = &pod
            && before.as_ref() == Some(pod)
        {
            self.pods.insert(name.clone(), pod.clone());
        }
        store(&mut self.pods, name, before, pod, &mut delta.pods)
    }

    fn view_mesh_config(&mut self, name: &ObjectName, json: Option<&Json>, delta: &mut Delta) -> Result<(), Unusable> {
        match json {
            None => {
                self.mesh_configs.remove(name);
            }
            Some(json) => {
                let config: MeshConfig = serde_json::from_str(json.get()).map_err(|error| error.to_string())?;
                let report = config.validate();
                if !report.is_ok() {
                    return Err(report.error_text());
                }
                self.mesh_configs.insert(name.clone(), Arc::new(config));
            }
        }
        self.set_mesh(self.mesh.started.clone(), delta);
        Ok(())
    }

    /// A digest of all objects.
    pub fn digest(&self) -> Digest {
        self.digest.digest(&self.objects)
    }

    /// Counts what changed since the last call into the digest, so that [`Catalog::digest`] costs nothing before the next change.
    pub fn settle_digest(&mut self) {
        self.digest.settle(&mut self.objects);
    }
}

/// The kind of `<apiVersion>/<Kind>`.
pub(crate) fn find_kind(gvk: &str) -> Option<&'static KindInfo> {
    let otherwise_written = || gvk.rsplit_once('/').and_then(|(version, kind)| KindInfo::find(version, kind));
    kinds::WATCHED.iter().find(|kind| kind.gvk() == gvk).or_else(otherwise_written)
}

/// One name for all served versions of a kind.
pub(crate) fn canonical(gvk: &str) -> Gvk {
    find_kind(gvk).map_or_else(|| gvk.to_owned().into(), |kind| kind.gvk().into())
}

fn set<T: Eq>(
    table: &mut Table<T>,
    name: &ObjectName,
    json: Option<&Json>,
    read: impl FnOnce(&Json) -> Result<T, Unusable>,
    changes: &mut ChangedByName<T>,
) -> Result<(), Unusable> {
    let before = table.get(name).cloned();
    store(table, name, before, json.map(read).transpose().map(|view| view.map(Arc::new)), changes)
}

/// Puts a view in its table in the place of the one before, and notes the change if there is one. What cannot be used counts as absent.
fn store<T: Eq>(
    table: &mut Table<T>,
    name: &ObjectName,
    before: Option<Arc<T>>,
    view: Result<Option<Arc<T>>, Unusable>,
    changes: &mut ChangedByName<T>,
) -> Result<(), Unusable> {
    let (after, outcome) = match view {
        Ok(view) => (view, Ok(())),
        Err(reason) => (None, Err(reason)),
    };
    if before != after {
        match &after {
            Some(after) => table.insert(name.clone(), after.clone()),
            None => table.remove(name),
        };
        changes.insert(name.clone(), Changed { before, after });
    }
    outcome
}
