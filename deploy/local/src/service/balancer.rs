//! Addresses for Services of type LoadBalancer, in a range the host sends to the first node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::event::Recorder;
use crate::informer::Informer;
use crate::net::{HostLink, NetError, NodeNet};
use crate::tasks::Tasks;

/// After a refusal.
const RETRY: Duration = Duration::from_secs(5);

/// What the balancer works with.
pub struct Balancer {
    pub client: Client,
    pub events: Recorder,
    pub net: Arc<NodeNet>,
    /// The first node's name.
    pub node: String,
    /// The interface's name on the host.
    pub interface: String,
}

/// Serves Services until `tasks` stops. The host is connected when the first one asks for it.
pub fn start(balancer: Balancer, services: &Informer<Service>, tasks: &Tasks) {
    let services = services.clone();
    tasks.spawn(async move {
        let mut changes = services.changes();
        let mut link = None;
        loop {
            changes.mark_unchanged();
            let state = services.store.state();
            if link.is_none() && state.iter().any(|service| wants_host(service)) {
                match balancer.connect().await {
                    Ok(connected) => link = Some(connected),
                    Err(error) => {
                        balancer.complain(&state, &error.to_string());
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            if let Err(error) = balancer.assign(link, &state).await {
                tracing::debug!(%error, "an address could not be given; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}

impl Balancer {
    async fn connect(&self) -> Result<HostLink, ConnectError> {
        let link = HostLink::connect(&self.net, &self.interface).await?;
        let api: Api<Node> = Api::all(self.client.clone());
        let node = api.get(&self.node).await?;
        let mut addresses = node.status.and_then(|s| s.addresses).unwrap_or_default();
        addresses.retain(|a| a.type_ != "ExternalIP");
        let mut addresses: Vec<_> = addresses.into_iter().map(|a| json!(a)).collect();
        addresses.push(json!({"type": "ExternalIP", "address": link.node().to_string()}));
        let patch = Patch::Merge(json!({"status": {"addresses": addresses}}));
        api.patch_status(&self.node, &PatchParams::default(), &patch).await?;
        Ok(link)
    }

    fn complain(&self, services: &[Arc<Service>], why: &str) {
        tracing::warn!(why, "services can't be reached from this machine");
        for service in services.iter().filter(|s| wants_address(s)) {
            self.events.warn(service.as_ref(), "SyncLoadBalancerFailed", why);
        }
    }

    /// Gives addresses to those who lack one, and takes them from those who no longer want one.
    async fn assign(&self, link: Option<HostLink>, services: &[Arc<Service>]) -> Result<(), kube::Error> {
        let pool: Vec<Ipv4Addr> = link.iter().flat_map(|link| link.service_addresses()).collect();
        let mut used = BTreeSet::new();
        let mut sorted: Vec<_> = services.iter().collect();
        sorted.sort_by_key(|service| service.creation_timestamp());
        let mut without = Vec::new();
        for service in sorted {
            let has = given(service);
            match (wants_address(service), has) {
                (true, Some(ip)) if pool.contains(&ip) && used.insert(ip) => {}
                (true, _) => without.push(service),
                (false, Some(_)) if is_ours(service) => self.publish(service, None).await?,
                (false, _) => {}
            }
        }
        for service in without {
            let asked = service.spec.as_ref().and_then(|s| s.load_balancer_ip.as_ref()?.parse().ok());
            let asked = asked.filter(|ip| pool.contains(ip) && !used.contains(ip));
            let Some(ip) = asked.or_else(|| pool.iter().find(|ip| !used.contains(ip)).copied()) else {
                self.events.warn(service.as_ref(), "SyncLoadBalancerFailed", "all addresses are in use");
                continue;
            };
            used.insert(ip);
            self.publish(service, Some(ip)).await?;
            self.events.note(service.as_ref(), "EnsuredLoadBalancer", &format!("Ensured load balancer at {ip}"));
        }
        Ok(())
    }

    async fn publish(&self, service: &Service, ip: Option<Ipv4Addr>) -> Result<(), kube::Error> {
        let ingress = ip.map(|ip| json!([{"ip": ip.to_string(), "ipMode": "VIP"}]));
        let api: Api<Service> = Api::namespaced(self.client.clone(), &service.namespace().unwrap_or_default());
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        match api.patch_status(&service.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("this machine can't be connected to the cluster: {0}")]
    Net(#[from] NetError),
    #[error("the node's outer address can't be published: {0}")]
    Api(#[from] kube::Error),
}

/// Those of another class are another controller's.
fn is_ours(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.load_balancer_class.is_none())
}

fn wants_address(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|s| s.type_.as_deref());
    kind == Some("LoadBalancer") && is_ours(service) && service.metadata.deletion_timestamp.is_none()
}

fn wants_host(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|s| s.type_.as_deref());
    wants_address(service) || kind == Some("NodePort")
}

fn given(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.iter().find_map(|i| i.ip.as_deref()?.parse().ok())
}
