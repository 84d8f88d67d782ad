//! Which endpoint a service chooses for whom: affinity, the pod itself, the node's own.

use std::collections::BTreeSet;

use fsm_local::LocalConfig;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::helpers::{
    TestCluster, cluster, endpoints, finished, get, nodes, output, patiently, serving, shell, until_some, up_as,
};

/// A service in front of the pods labelled `web`.
async fn service(c: &TestCluster, more: Value) -> Service {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    let mut spec = json!({"selector": {"app": "web"}, "ports": ports});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    c.create::<Service>(json!({"metadata": {"name": "web"}, "spec": spec})).await
}

/// A pod behind it, that says its own name.
fn web(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [serving(name)]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_affinity_keeps_its_endpoint() {
    let Some(c) = cluster().await else { return };
    let address = service(&c, json!({})).await.spec.unwrap().cluster_ip.unwrap();
    for name in ["a", "b", "c"] {
        c.create::<Pod>(web(name)).await;
        c.ready(name).await;
    }
    let answers = async || {
        let mut seen = BTreeSet::new();
        for _ in 0..30 {
            let stream = c.cluster.net().dial(format!("{address}:80").parse().unwrap()).await.ok()?;
            seen.insert(get(stream, "/").await?);
        }
        Some(seen.len())
    };
    until_some(async || answers().await.filter(|count| *count == 3)).await;
    let patch = kube::api::Patch::Merge(json!({"spec": {"sessionAffinity": "ClientIP"}}));
    c.api::<Service>().patch("web", &kube::api::PatchParams::default(), &patch).await.unwrap();
    until_some(async || answers().await.filter(|count| *count == 1)).await;
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_reaches_itself_through_its_service() {
    let Some(c) = cluster().await else { return };
    service(&c, json!({})).await;
    let mut pod = web("web");
    // The pod knows itself as `web`, without the service.
    let script =
        "ask() { curl -sf http://web.default.svc/ && echo; }; until ask; do sleep 0.1; done; ask; ask; exec sleep 1000";
    let client = json!({"name": "client", "image": "busybox", "command": ["/bin/sh", "-c", script]});
    pod["spec"]["containers"].as_array_mut().unwrap().push(client);
    c.create::<Pod>(pod).await;
    c.ready("web").await;
    until_some(async || (c.log_of("web", "client").await == "web\nweb\nweb\n").then_some(())).await;
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_policies_lead_to_endpoints_of_the_node_only() {
    let Some(c) = nodes(2).await else { return };
    let policies = json!({"type": "LoadBalancer", "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"});
    let made = service(&c, policies).await.spec.unwrap();
    let (address, port) = (made.cluster_ip.unwrap(), made.ports.unwrap()[0].node_port.unwrap());
    let mut pod = web("far");
    pod["spec"]["nodeName"] = json!("local-2");
    c.create::<Pod>(pod).await;
    c.ready("far").await;
    until_some(async || (endpoints(&c, "web").await.len() == 1).then_some(())).await;

    let said = async |name: &str, node: &str, script: &str| {
        let mut pod = shell(name, script);
        pod["spec"]["nodeName"] = json!(node);
        pod["spec"]["restartPolicy"] = json!("Never");
        finished(&c, pod).await
    };
    assert_eq!(said("beside", "local-2", "until curl -sf http://web/; do sleep 0.1; done").await, "far");
    // The rules of this node are as old as those of the other: what has no endpoint here refuses.
    let dial = async |addr: String| patiently(c.cluster.net().dial(addr.parse().unwrap())).await.unwrap();
    assert!(dial(format!("{address}:80")).await.is_err());
    assert!(dial(format!("{}:{port}", c.cluster.net().addresses()[0])).await.is_err());
    assert_eq!(said("elsewhere", "local", "curl -s http://web/ || echo refused").await, "refused\n");

    let given = |service: &Service| {
        let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
        ingress.first()?.ip.clone()
    };
    let ip = given(&c.until::<Service>("web", |service| given(service).is_some()).await).unwrap();
    // The host's own address, not a node's.
    let seen = until_some(async || get(TcpStream::connect(format!("{ip}:80")).await.ok()?, "/client").await).await;
    assert_eq!(seen, ip.rsplit_once('.').unwrap().0.to_owned() + ".1");
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_both_families_answers_at_both_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig::new(dir.path(), std::env::current_exe().unwrap());
    let Some(cluster) = up_as(LocalConfig { dual_stack: true, ..config }).await else { return };
    let c = TestCluster { cluster, dir };
    if c.cluster.net().addresses().len() < 2 {
        println!("skipped: needs IPv6");
        c.cluster.shutdown().await;
        return;
    }
    let made = service(&c, json!({"ipFamilyPolicy": "PreferDualStack"})).await.spec.unwrap();
    let addresses = made.cluster_ips.unwrap();
    assert!(addresses.len() == 2 && addresses[1].starts_with("fd00:10:96::"), "{addresses:?}");
    assert_eq!(made.ip_families.unwrap(), ["IPv4", "IPv6"]);
    c.create::<Pod>(web("web")).await;
    c.ready("web").await;
    for address in addresses {
        let address = std::net::SocketAddr::new(address.parse().unwrap(), 80);
        let seen = until_some(async || get(c.cluster.net().dial(address).await.ok()?, "/client").await).await;
        assert_eq!(seen.contains(':'), address.is_ipv6(), "{seen}");
    }
    let names = output(
        &c,
        "client",
        "getent ahostsv6 web.default.svc | head -1 | cut -d' ' -f1; curl -6 -sf http://web.default.svc/",
    )
    .await;
    assert!(names.starts_with("fd00:10:96::") && names.ends_with("\nweb"), "{names}");
    c.cluster.shutdown().await;
}
