//! The Node object.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::machine_memory_bytes;
use crate::net::NodeNet;
use crate::service::ZONE;

/// How many pods the node says it takes.
const MAX_PODS: u32 = 250;

/// The node's labels. Each node is in one of three zones, in turn.
fn labels(node_name: &str, index: u8) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let zone = ["zone-a", "zone-b", "zone-c"][usize::from(index) % 3];
    let mut labels = vec![
        ("kubernetes.io/hostname", node_name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("topology.kubernetes.io/region", "local"),
        // `fsm install` puts no agent here: this node intercepts its pods itself.
        ("flomesh.io/interception", "built-in"),
        (ZONE, zone),
    ];
    if index == 0 {
        labels.push(("node-role.kubernetes.io/control-plane", ""));
    }
    labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Makes the Node object, or brings the one of an earlier start up to date.
pub(super) async fn register(client: &Client, name: &str, net: &NodeNet) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let labels = labels(name, net.plan().index);
    let ranges = [net.plan().pods.to_string(), net.plan().pods6().to_string()];
    let ranges = &ranges[..net.addresses().len().min(2)];
    let spec = json!({"podCIDR": ranges[0], "podCIDRs": ranges, "providerID": format!("fsm-local://{name}")});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": spec});
    let node: Node = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let patch = json!({"metadata": {"labels": labels}, "spec": spec});
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Err(error) => return Err(error),
    }
    let (now, cpus) = (Timestamp::now(), std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": format!("{now:.0}"), "lastTransitionTime": format!("{now:.0}")})
    };
    let size = json!({"cpu": cpus.to_string(), "memory": format!("{}Ki", machine_memory_bytes() / 1024), "pods": MAX_PODS.to_string()});
    let mut addresses: Vec<_> = net.addresses().iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": name}));
    let version = format!("fsm-local v{}", env!("CARGO_PKG_VERSION"));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let status = json!({"status": {
        "addresses": addresses,
        "capacity": size, "allocatable": size,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "the node agent does not watch memory"),
            condition("Ready", "True", "KubeletReady", "the node agent is running"),
        ],
        "nodeInfo": {"kubeletVersion": version, "kubeProxyVersion": version, "operatingSystem": "linux",
            "architecture": labels["kubernetes.io/arch"], "kernelVersion": kernel.trim(), "osImage": "this machine",
            "containerRuntimeVersion": "fsm-local://processes", "machineID": "", "systemUUID": "", "bootID": ""},
    }});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await
}
