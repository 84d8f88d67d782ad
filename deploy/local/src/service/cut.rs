//! A cut between nodes, for tests: each of the two drops what comes from the other. Which nodes are cut off from one another is
//! said by an annotation of Node objects, so anyone who can write those can cut and mend.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::nft::{Expressions, Header, Hook, Meta, PREROUTING, Reg, Table};
use crate::cluster::node_name;
use crate::informer::Informer;
use crate::net::{Netns, NetworkPlan, NodeNet};
use crate::tasks::Tasks;

/// Names the nodes, with commas between them, that the annotated one is cut off from.
pub const CUT_FROM: &str = "local.flomesh.io/cut-from";
const TABLE: &str = "fsm-cuts";
const RETRY: Duration = Duration::from_secs(1);

/// Cuts two nodes off from each other.
pub async fn cut(client: &Client, one: &str, other: &str) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    // Both must be there.
    let (node, _) = (api.get(one).await?, api.get(other).await?);
    let mut names = listed(&node);
    names.insert(other.to_owned());
    annotate(&api, one, Some(names.into_iter().collect::<Vec<_>>().join(","))).await
}

/// Mends all cuts.
pub async fn mend(client: &Client) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    for node in api.list(&ListParams::default()).await?.items {
        if node.annotations().contains_key(CUT_FROM) {
            annotate(&api, &node.name_any(), None).await?;
        }
    }
    Ok(())
}

async fn annotate(api: &Api<Node>, node: &str, names: Option<String>) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"annotations": {CUT_FROM: names}}});
    api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Keeps one node cut off from those the annotations say, until `tasks` stops.
pub fn keep_cut(net: Arc<NodeNet>, node: String, nodes: &Informer<Node>, tasks: &Tasks) {
    let nodes = nodes.clone();
    tasks.spawn(async move {
        let mut changes = nodes.changes();
        let mut in_force = BTreeSet::new();
        loop {
            changes.mark_unchanged();
            let wanted = cut_from(&node, &nodes.store.state());
            if wanted != in_force {
                let (of_node, others) = (Arc::clone(&net), wanted.clone());
                let written = tokio::task::spawn_blocking(move || enforce(&others, of_node.netns()));
                match written.await.map_err(io::Error::other).and_then(|written| written) {
                    Ok(()) => in_force = wanted,
                    Err(error) => {
                        tracing::warn!(node, %error, "the cuts stay as they were; trying again");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
}

/// The nodes that `node` is cut off from: those it names and those that name it.
fn cut_from(node: &str, nodes: &[Arc<Node>]) -> BTreeSet<String> {
    let mut others = BTreeSet::new();
    for other in nodes {
        let named = listed(other);
        if other.name_any() == node {
            others.extend(named);
        } else if named.contains(node) {
            others.insert(other.name_any());
        }
    }
    others
}

fn listed(node: &Node) -> BTreeSet<String> {
    let text = node.annotations().get(CUT_FROM).map_or("", String::as_str);
    text.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Drops what comes from pods and addresses of the nodes named.
fn enforce(others: &BTreeSet<String>, netns: &Netns) -> io::Result<()> {
    let mut table = Table::anew(TABLE);
    table.chain("incoming", Some(Hook { kind: "filter", number: PREROUTING, priority: -300 }));
    for plan in (0..NetworkPlan::MAX_NODES).filter(|i| others.contains(&node_name(*i))).map(NetworkPlan::of_node) {
        let (own, own6) = plan.uplink();
        let ranges: [(IpAddr, IpAddr); 4] = [
            (plan.pods.network().into(), plan.pods.netmask().into()),
            (plan.pods6().network().into(), plan.pods6().netmask().into()),
            (own.into(), std::net::Ipv4Addr::BROADCAST.into()),
            (own6.into(), std::net::Ipv6Addr::from_bits(u128::MAX).into()),
        ];
        for (network, mask) in ranges {
            let (family, offset, bytes) = if network.is_ipv4() { (2, 12, 4) } else { (10, 8, 16) };
            let from = Expressions::default()
                .load_meta(Meta::Protocol, Reg(0))
                .equals(Reg(0), &[family])
                .load(Header::Network, offset, bytes, Reg(0))
                .mask(Reg(0), &super::rules::octets(mask))
                .equals(Reg(0), &super::rules::octets(network));
            table.rule("incoming", &from.drop());
        }
    }
    table.commit(netns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_one_from_both_sides() {
        let node = |name: &str, from: &str| {
            let metadata = json!({"name": name, "annotations": {CUT_FROM: from}});
            Arc::new(serde_json::from_value::<Node>(json!({"metadata": metadata})).unwrap())
        };
        let nodes = [node("local", "local-2, local-3"), node("local-2", ""), node("local-3", "")];
        let of = |name: &str| cut_from(name, &nodes).into_iter().collect::<Vec<_>>();
        assert_eq!((of("local"), of("local-2")), (vec!["local-2".into(), "local-3".into()], vec!["local".to_owned()]));
    }
}
