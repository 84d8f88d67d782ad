//! The service network: a connection to a ClusterIP is carried to one of the service's ready endpoints.
//!
//! For every service port that has ready endpoints there is a listener in the node's namespace. A service without ready
//! endpoints has none, so the kernel refuses connections to it at once. The forwarder ends the client's connection and makes
//! one of its own, so an endpoint sees the node's address as its client (a documented difference from kube-proxy; pods in the
//! mesh never come this way, their proxies connect to endpoints).

mod backends;
mod forward;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;

use crate::informer::Informer;
use crate::net::NodeNet;
use crate::tasks::Tasks;

pub use backends::{SERVICE_NAME, backends, is_ready};
use forward::Forwarder;

/// Keeps forwarders in step with Services and EndpointSlices until `tasks` stops.
pub fn start(net: Arc<NodeNet>, services: &Informer<Service>, slices: &Informer<EndpointSlice>, tasks: &Tasks) {
    let (services, slices) = (services.clone(), slices.clone());
    let group = tasks.clone();
    tasks.spawn(async move {
        let (mut services_changed, mut slices_changed) = (services.changes(), slices.changes());
        let mut forwarders: BTreeMap<SocketAddr, Forwarder> = BTreeMap::new();
        loop {
            // Marked seen before reading: a change that arrives meanwhile wakes the loop again.
            services_changed.mark_unchanged();
            slices_changed.mark_unchanged();
            let wanted = backends(&services.store.state(), &slices.store.state());
            apply(&net, &group, &mut forwarders, wanted);
            if !either(&mut services_changed, &mut slices_changed).await {
                return;
            }
        }
    });
}

fn apply(
    net: &Arc<NodeNet>,
    tasks: &Tasks,
    forwarders: &mut BTreeMap<SocketAddr, Forwarder>,
    wanted: BTreeMap<SocketAddr, Vec<SocketAddr>>,
) {
    forwarders.retain(|addr, _| wanted.contains_key(addr));
    for (addr, endpoints) in wanted {
        if let Some(forwarder) = forwarders.get(&addr) {
            forwarder.set(endpoints);
            continue;
        }
        match Forwarder::start(Arc::clone(net), addr, endpoints, tasks) {
            Ok(forwarder) => {
                forwarders.insert(addr, forwarder);
            }
            Err(error) => tracing::warn!(service = %addr, %error, "cannot listen for a service; it stays unreachable"),
        }
    }
}

/// Waits for a change of either; false when both sources have ended.
pub(crate) async fn either(a: &mut watch::Receiver<u64>, b: &mut watch::Receiver<u64>) -> bool {
    tokio::select! {
        changed = a.changed() => changed.is_ok(),
        changed = b.changed() => changed.is_ok(),
    }
}
