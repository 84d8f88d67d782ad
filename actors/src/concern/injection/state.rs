//! What the injection webhook has to know.

use std::sync::Arc;

use fsm_proxy_config::Digest;

use crate::catalog::view::Namespace;
use crate::catalog::{Mesh, ObjectName, Table};
use crate::concern::{Change, Concern, Step};
use crate::digest::{Member, SetDigest};

/// The state machine: the mesh's settings and the namespaces. A clone is a version, and costs a few pointers.
#[derive(Clone, Debug, Default)]
pub struct Injection {
    mesh: Arc<Mesh>,
    namespaces: Table<Namespace>,
}

impl Injection {
    /// Mesh-wide settings.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Whether a namespace belongs to this mesh, as far as the log has come. The API server asks the webhook about pods of
    /// namespaces of the mesh only: if this says no, the namespace's last change may still be on its way.
    pub fn monitors(&self, namespace: &str) -> bool {
        self.namespace(namespace).is_some_and(|namespace| self.mesh.monitors(namespace))
    }

    /// Whether nothing was changed between the two.
    pub(crate) fn is_same_version(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mesh, &other.mesh) && self.namespaces.is_same_version(&other.namespaces)
    }

    /// A namespace by its name.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(&ObjectName::new("", name)).map(|namespace| &**namespace)
    }
}

impl Concern for Injection {
    const NAME: &'static str = "injection";

    fn apply(&mut self, step: &Step<'_>) -> Vec<Change> {
        if step.delta.mesh.is_some() {
            self.mesh = step.catalog.shared_mesh();
        }
        if !step.delta.namespaces.is_empty() {
            self.namespaces = step.catalog.namespaces().clone();
        }
        Vec::new()
    }

    fn digest(&self) -> Digest {
        let started = &self.mesh.started;
        let config = serde_json::to_string(&self.mesh.config).expect("settings are plain data");
        let mut digest = SetDigest::default();
        digest.add(Member::of(
            [&started.mesh_name, &started.mesh_namespace, &started.trust_domain, &config].map(|part| part.as_bytes()),
        ));
        for (name, namespace) in self.namespaces.iter() {
            let values = namespace.labels.iter().chain(&namespace.annotations);
            let values = values.flat_map(|(key, value)| [key.as_bytes(), value.as_bytes()]);
            digest.add(Member::of([&b"namespace"[..], name.name().as_bytes()].into_iter().chain(values)));
        }
        digest.digest()
    }
}
