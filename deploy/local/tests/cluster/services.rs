//! Services: readiness makes an endpoint, a name leads to an address, an address to a pod.

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use crate::helpers::{TestCluster, cluster, patiently, serving, shell};

async fn endpoints(c: &TestCluster, service: &str) -> Vec<(String, bool)> {
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = c.api::<EndpointSlice>().list(&of_service).await.unwrap();
    let endpoints = slices.items.into_iter().flat_map(|s| s.endpoints.unwrap_or_default());
    endpoints.map(|e| (e.addresses[0].clone(), e.conditions.unwrap().ready.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_pod_is_reached_by_the_services_name() {
    let Some(c) = cluster().await else { return };
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}});
    c.create::<Service>(service).await;
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [serving("hello")]}});
    c.create::<Pod>(pod).await;
    let web = c.ready("web").await;
    let ip = web.status.unwrap().pod_ip.unwrap();
    patiently(async {
        while endpoints(&c, "web").await != [(ip.clone(), true)] {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the ready pod becomes an endpoint");

    // The shell tries until the name resolves and the forwarder listens: both follow the endpoint by an instant.
    let script = "until curl -sf http://web/ || curl -sf http://web.default.svc.cluster.local/; do sleep 0.1; done; echo; \
        getent hosts nobody || echo no such name";
    let mut client = shell("client", script);
    client["spec"]["restartPolicy"] = json!("Never");
    c.create::<Pod>(client).await;
    c.until::<Pod>("client", |pod| pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Succeeded"))).await;
    assert_eq!(c.log("client").await, "hello\nno such name\n");

    let address = c.api::<Service>().get("web").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    c.api::<Pod>().delete("web", &DeleteParams::default()).await.unwrap();
    c.until_gone::<Pod>("web").await;
    let refused = patiently(async {
        loop {
            match c.cluster.net().dial(format!("{address}:80").parse().unwrap()).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return error.kind(),
            }
        }
    });
    assert_eq!(refused.await, Some(std::io::ErrorKind::ConnectionRefused));
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_reach_the_api_with_their_token() {
    let Some(c) = cluster().await else { return };
    let script = "d=/var/run/secrets/kubernetes.io/serviceaccount; \
        curl -s --cacert $d/ca.crt -H \"Authorization: Bearer $(cat $d/token)\" -o /tmp/out -w '%{http_code}\\n' https://kubernetes.default.svc/version";
    let mut pod = shell("asker", script);
    pod["spec"]["restartPolicy"] = json!("Never");
    c.create::<Pod>(pod).await;
    c.until::<Pod>("asker", |pod| {
        pod.status.as_ref().is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")))
    })
    .await;
    assert_eq!(c.log("asker").await, "200\n");
    c.cluster.shutdown().await;
}
