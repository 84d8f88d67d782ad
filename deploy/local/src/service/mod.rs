//! The service network: a connection to a service's address becomes one to an endpoint, on the node it starts from or arrives at.
//!
//! What is answered follows from Services and EndpointSlices ([`plan`]) and is written into each node's kernel ([`rules`]), as
//! kube-proxy does. A service nobody serves is not in there, so its address is the node's own, where nobody listens: connections
//! are refused at once.

mod balancer;
mod cut;
mod nft;
mod plan;
mod rules;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use tokio::sync::watch;

use crate::informer::Informer;
use crate::net::{NetworkPlan, NodeNet};
use crate::tasks::Tasks;

pub use balancer::{Balancer, start as balance};
pub use cut::{CUT_FROM, cut, keep_cut, mend};
pub use plan::{Balanced, Here, Protocol, SERVICE_NAME, cluster_ips, is_ready, plan};

/// After a refusal of the kernel.
const RETRY: Duration = Duration::from_secs(1);
/// The label that says where a node is.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Whether the kernel has what the service network needs.
pub fn check() -> io::Result<()> {
    rules::check(&NetworkPlan::default())
}

/// Keeps one node's kernel in step with Services, EndpointSlices and Nodes until `tasks` stops.
pub fn start(
    net: Arc<NodeNet>,
    node: String,
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
    nodes: &Informer<Node>,
    tasks: &Tasks,
) {
    let (services, slices, nodes) = (services.clone(), slices.clone(), nodes.clone());
    tasks.spawn(async move {
        let mut changes = [services.changes(), slices.changes(), nodes.changes()];
        let mut in_force: Option<Vec<Balanced>> = None;
        loop {
            // Marked seen before reading: a change that arrives meanwhile wakes the loop again.
            changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
            let wanted = plan(&services.store.state(), &slices.store.state(), &here(&net, &node, &nodes.store.state()));
            if in_force.as_ref() != Some(&wanted) {
                let (of_node, rules) = (Arc::clone(&net), wanted.clone());
                let written =
                    tokio::task::spawn_blocking(move || rules::enforce(&rules, of_node.plan(), of_node.netns()));
                match written.await.map_err(io::Error::other).and_then(|written| written) {
                    Ok(()) => in_force = Some(wanted),
                    Err(error) => {
                        tracing::warn!(node, %error, "the service network stays as it was; trying again");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            if !any(&mut changes).await {
                return;
            }
        }
    });
}

fn here(net: &NodeNet, name: &str, nodes: &[Arc<Node>]) -> Here {
    let node = nodes.iter().find(|node| node.name_any() == name);
    let given = node.into_iter().filter_map(|n| n.status.as_ref()).flat_map(|s| s.addresses.iter().flatten());
    let outer = given.filter(|a| a.type_ == "ExternalIP").filter_map(|a| a.address.parse().ok());
    Here {
        node: name.to_owned(),
        zone: node.and_then(|n| n.labels().get(ZONE).cloned()),
        addresses: net.addresses().into_iter().chain(outer).collect(),
    }
}

/// Waits for a change of any; false when the sources have ended.
pub(crate) async fn any(changes: &mut [watch::Receiver<u64>]) -> bool {
    let each = changes.iter_mut().map(|changed| Box::pin(changed.changed()));
    futures::future::select_all(each).await.0.is_ok()
}
