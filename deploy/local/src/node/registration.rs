//! The Node object.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::machine_memory_bytes;

/// How many pods the node says it takes.
const MAX_PODS: u32 = 250;

/// The node's labels.
pub fn labels(node_name: &str) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let labels = [
        ("kubernetes.io/hostname", node_name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("node-role.kubernetes.io/control-plane", ""),
    ];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Makes the Node object, or brings the one of an earlier start up to date.
pub(super) async fn register(client: &Client, name: &str, ip: Ipv4Addr) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels(name)}, "spec": {}});
    let node: Node = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => return Err(error),
    }
    let (now, cpus) = (Timestamp::now(), std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": format!("{now:.0}"), "lastTransitionTime": format!("{now:.0}")})
    };
    let size = json!({"cpu": cpus.to_string(), "memory": format!("{}Ki", machine_memory_bytes() / 1024), "pods": MAX_PODS.to_string()});
    let version = format!("fsm-local v{}", env!("CARGO_PKG_VERSION"));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": ip.to_string()}, {"type": "Hostname", "address": name}],
        "capacity": size, "allocatable": size,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "the node agent does not watch memory"),
            condition("Ready", "True", "KubeletReady", "the node agent is running"),
        ],
        "nodeInfo": {"kubeletVersion": version, "kubeProxyVersion": version, "operatingSystem": "linux",
            "architecture": labels(name)["kubernetes.io/arch"], "kernelVersion": kernel.trim(), "osImage": "this machine",
            "containerRuntimeVersion": "fsm-local://processes", "machineID": "", "systemUUID": "", "bootID": ""},
    }});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.map(drop)
}
