//! Several nodes: pods are spread over them, reach one another, and can be cut off.

use fsm_local::service;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::helpers::{TestCluster, nodes, serving, until_some};
use crate::server;

/// The answer of the pod with this address, asked from the first node; none if it does not come soon.
async fn ask(c: &TestCluster, ip: &str) -> Option<String> {
    let addr = format!("{ip}:{}", server::PORT).parse().unwrap();
    let asked = async {
        let mut stream = c.cluster.net().dial(addr).await.ok()?;
        stream.write_all(b"GET /client HTTP/1.1\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    };
    tokio::time::timeout(std::time::Duration::from_millis(500), asked).await.ok()?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_runs_on_each_node_and_a_cut_separates_two() {
    let Some(c) = nodes(3).await else { return };
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    c.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}))
        .await;
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [serving("daemon")]}});
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    c.create::<DaemonSet>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    c.until::<DaemonSet>("web", |set| set.status.as_ref().is_some_and(|s| s.number_available == Some(3))).await;
    let pods = c.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    let on = |node: &str| {
        let pod = pods.iter().find(|pod| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node)).unwrap();
        pod.status.as_ref().unwrap().pod_ip.clone().unwrap()
    };
    assert!(on("local-2").starts_with("10.244.4.") && on("local-3").starts_with("10.244.8."));
    let zones = until_some(async || {
        let slices = c.api::<EndpointSlice>().list(&ListParams::default()).await.unwrap().items;
        let endpoints = slices
            .into_iter()
            .filter(|s| s.name_any().starts_with("web-"))
            .flat_map(|s| s.endpoints.unwrap_or_default());
        let mut zones: Vec<_> = endpoints.filter_map(|e| e.zone).collect();
        zones.sort();
        (zones.len() == 3).then_some(zones)
    });
    assert_eq!(zones.await, ["zone-a", "zone-b", "zone-c"]);

    for node in ["local", "local-2", "local-3"] {
        let seen = until_some(async || ask(&c, &on(node)).await).await;
        assert_eq!(seen, "10.244.0.1", "the node is seen by its own address");
    }
    service::cut(&c.cluster.client(), "local", "local-2").await.unwrap();
    until_some(async || ask(&c, &on("local-2")).await.is_none().then_some(())).await;
    assert!(ask(&c, &on("local-3")).await.is_some());
    service::mend(&c.cluster.client()).await.unwrap();
    until_some(async || ask(&c, &on("local-2")).await).await;

    c.api::<DaemonSet>().delete("web", &DeleteParams::background()).await.unwrap();
    c.cluster.shutdown().await;
}
