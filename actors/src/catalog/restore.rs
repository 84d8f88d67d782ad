//! A catalog built at once from what still counts of a history, instead of from all of it.

use std::sync::Arc;

use fsm_api::{MeshConfig, kinds};
use fsm_store::Seq;

use super::delta::Changed;
use super::{Catalog, Delta, Gvk, Mesh, Object, ObjectKey, ObjectName, PersistentMap, ProxyStatus, find_kind};
use crate::Json;
use crate::fact::ControllerStarted;

/// All that a catalog consists of; views and indexes follow from it.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    pub started: ControllerStarted,
    /// Every object, with the record that it was last seen in.
    pub objects: Vec<(Seq, ObjectKey, Json)>,
    /// Lists under way: a kind, and its objects that are not named yet.
    pub relists: Vec<(Gvk, Vec<ObjectName>)>,
    /// MeshConfigs that are in force, although what is among the objects under their name is unusable.
    pub kept_configs: Vec<(ObjectName, MeshConfig)>,
    pub proxies: Vec<(ObjectName, ProxyStatus)>,
}

impl Catalog {
    /// What [`Catalog::restore`] needs to come to this version.
    pub(crate) fn remains(&self) -> Remains {
        let unusable = |name: &ObjectName| self.unusable.contains_key(&(kinds::MESH_CONFIG.gvk().into(), name.clone()));
        Remains {
            started: self.mesh.started.clone(),
            objects: self.objects.iter().map(|(key, object)| (object.seq, key.clone(), object.json.clone())).collect(),
            relists: self.relists.iter().map(|(gvk, names)| (gvk.clone(), names.keys().cloned().collect())).collect(),
            kept_configs: self
                .mesh_configs
                .iter()
                .filter(|(name, _)| unusable(name))
                .map(|(name, config)| (name.clone(), (**config).clone()))
                .collect(),
            proxies: self.proxies.iter().map(|(name, status)| (name.clone(), status.clone())).collect(),
        }
    }

    /// The version that the records up to `seq` led to, and what differs in it from an empty catalog.
    pub(crate) fn restore(seq: Seq, remains: Remains) -> (Self, Delta) {
        let mut catalog = Self { seq, ..Self::default() };
        let mut delta = Delta::default();
        for (name, config) in remains.kept_configs {
            catalog.mesh_configs.insert(name, Arc::new(config));
        }
        for (seen, key, json) in remains.objects {
            catalog.view(find_kind(&key.0), &key, Some(&json), &mut delta);
            catalog.put(&key, Object::new(seen, json));
        }
        catalog.set_mesh(remains.started, &mut delta);
        let before = Arc::new(Mesh::default());
        delta.mesh =
            (catalog.mesh != before).then(|| Changed { before: Some(before), after: Some(catalog.mesh.clone()) });
        for (gvk, names) in remains.relists {
            let mut unnamed = PersistentMap::default();
            for name in names {
                unnamed.insert(name, ());
            }
            catalog.relists.insert(gvk, unnamed);
        }
        for (proxy, status) in remains.proxies {
            catalog.proxies.restore(proxy, status);
        }
        catalog.index.follow(&mut delta, &catalog.pods, &catalog.slices);
        delta.touched = catalog.touched_services(&delta);
        (catalog, delta)
    }
}
