//! How views become the messages that proxies get. Pure functions; lists that are sets come out sorted, so that equal content has
//! equal bytes.

mod endpoints;
mod lookup;
mod observe;
mod policy;
mod service;
mod workload;

use fsm_proxy_config::proto;

pub use endpoints::{endpoint, endpoint_ports};
pub use policy::{inbound_policy, route_group, split, tcp_route};
pub use service::{protocol, service};
pub use workload::workload;

use crate::catalog::Mesh;
use fsm_api::mesh_config::LocalProxyMode;

/// Mesh-wide behaviour of the proxies.
pub fn settings(mesh: &Mesh) -> proto::Settings {
    let sidecar = &mesh.config.sidecar;
    let timeout_ms = u32::try_from(sidecar.sidecar_timeout.saturating_mul(1000)).unwrap_or(u32::MAX);
    proto::Settings {
        mesh_name: mesh.started.mesh_name.clone(),
        trust_domain: mesh.started.trust_domain.clone(),
        permissive: mesh.is_permissive(),
        egress: mesh.traffic().enable_egress,
        connect_timeout_ms: timeout_ms,
        idle_timeout_ms: timeout_ms,
        dial_pod_ip: sidecar.local_proxy_mode == LocalProxyMode::PodIP,
        names: lookup::names(&sidecar.local_dns_proxy),
        access_log: observe::access_log(&mesh.config.observability.access_log),
        remote_log: observe::remote_log(&mesh.config.observability.remote_logging),
        tracing: observe::tracing(mesh),
    }
}
