//! Pods of the mesh: intercepted before they start, or not started at all.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use serde_json::json;

use crate::helpers::{cluster, serving, shell, until_some};

#[tokio::test(flavor = "multi_thread")]
async fn a_meshed_pods_connections_go_to_its_sidecar() {
    let Some(c) = cluster().await else { return };
    if let Err(missing) = fsm_ebpf::Interceptor::load() {
        println!("skipped: needs eBPF ({missing})");
        c.cluster.shutdown().await;
        return;
    }
    let mut sidecar = serving("the sidecar");
    sidecar["name"] = json!("sidecar");
    sidecar["restartPolicy"] = json!("Always");
    sidecar["env"].as_array_mut().unwrap().push(json!({"name": "PORT", "value": fsm_ebpf::OUTBOUND_PORT.to_string()}));
    sidecar["startupProbe"] =
        json!({"tcpSocket": {"port": fsm_ebpf::OUTBOUND_PORT}, "periodSeconds": 1, "failureThreshold": 60});
    // The probe comes from the node; this port is no proxy's, so it must not be captured.
    let excluded = json!({"flomesh.io/inbound-port-exclusion-list": fsm_ebpf::OUTBOUND_PORT.to_string()});
    let mut pod = shell("meshed", "curl -s http://192.0.2.1/; echo");
    pod["metadata"]["labels"]["fsm-proxy-uuid"] = json!("7d1f0d9c-7a51-4b9e-a0ac-2a8d9f2f6d3b");
    pod["metadata"]["annotations"] = excluded;
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["initContainers"] = json!([sidecar]);
    c.create::<Pod>(pod).await;
    c.until::<Pod>("meshed", |pod| pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Succeeded"))).await;
    assert_eq!(c.log("meshed").await, "the sidecar\n");
    assert_eq!(c.cluster.interception(), "ebpf");
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meshed_pod_with_senseless_rules_is_not_started() {
    let Some(c) = cluster().await else { return };
    let mut pod = shell("meshed", "true");
    pod["metadata"]["labels"]["fsm-proxy-uuid"] = json!("7d1f0d9c-7a51-4b9e-a0ac-2a8d9f2f6d3b");
    pod["metadata"]["annotations"] = json!({"flomesh.io/outbound-port-exclusion-list": "http"});
    c.create::<Pod>(pod).await;
    let refused = until_some(async || {
        let events = c.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        events.into_iter().find(|e| e.reason.as_deref() == Some("FailedCreatePodSandBox"))
    });
    let message = refused.await.message.unwrap();
    assert!(message.contains("outbound-port-exclusion-list") && message.contains("\"http\""), "{message}");
    assert_eq!(c.api::<Pod>().get("meshed").await.unwrap().status.unwrap().phase.as_deref(), Some("Pending"));
    c.cluster.shutdown().await;
}
