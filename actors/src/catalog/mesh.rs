//! The settings of the whole mesh: what the controller brought along, and the MeshConfig.

use fsm_api::mesh_config::{MeshConfigSpec, TrafficSpec};
use fsm_api::names;
use fsm_proxy_config::SpiffeId;

use super::view::{Account, Namespace};
use crate::fact::ControllerStarted;

/// Mesh-wide settings. Before a controller has started on the log, the mesh has no name and no members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {
    pub started: ControllerStarted,
    /// The MeshConfig's content; the defaults if there is none.
    pub config: MeshConfigSpec,
}

impl Mesh {
    /// `spec.traffic` of the MeshConfig.
    pub fn traffic(&self) -> &TrafficSpec {
        &self.config.traffic
    }

    /// TrafficTargets are ignored.
    pub fn is_permissive(&self) -> bool {
        self.config.traffic.enable_permissive_traffic_policy_mode
    }

    /// The identity of a service account in this mesh; none while the trust domain isn't known.
    pub fn identity(&self, account: &Account) -> Option<SpiffeId> {
        SpiffeId::new(&self.started.trust_domain, account.namespace(), account.name()).ok()
    }

    /// Whether a namespace belongs to this mesh.
    pub fn monitors(&self, namespace: &Namespace) -> bool {
        !self.started.mesh_name.is_empty()
            && namespace.labels.get(names::MONITORED_BY) == Some(&self.started.mesh_name)
            && !namespace.labels.contains_key(names::IGNORE)
    }

    /// Whether two versions of the settings differ in who belongs to the mesh, or how its members are named.
    pub fn same_membership(&self, other: &Self) -> bool {
        self.started.mesh_name == other.started.mesh_name && self.started.trust_domain == other.started.trust_domain
    }
}
