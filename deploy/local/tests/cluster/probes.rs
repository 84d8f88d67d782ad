//! Probes of every kind, against servers that speak their protocol.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::helpers::{TestCluster, cluster, serving, until_some};
use crate::secure;

/// The status of the pod's only container.
fn seen(pod: &Pod) -> Value {
    json!(pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()?.first()))
}

/// Makes a file in the `/tmp` of the pod's container.
fn touch(c: &TestCluster, pod: &str, file: &str) {
    let pid = c.cluster.container_pid("default", pod, "web").unwrap();
    std::fs::write(format!("/proc/{pid}/root/tmp/{file}"), "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_decide_readiness_and_restarts() {
    let Some(c) = cluster().await else { return };
    let mut web = serving("probed");
    web["readinessProbe"] =
        json!({"httpGet": {"path": "/file/ready", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1});
    web["livenessProbe"] =
        json!({"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 1});
    let pod =
        json!({"metadata": {"name": "probed"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [web]}});
    c.create::<Pod>(pod).await;
    c.until::<Pod>("probed", |pod| seen(pod)["started"] == true && seen(pod)["ready"] == false).await;
    touch(&c, "probed", "ready");
    c.ready("probed").await;
    touch(&c, "probed", "sick");
    let restarted = c.until::<Pod>("probed", |pod| seen(pod)["restartCount"] == 1);
    let restarted = restarted.await;
    assert_eq!(seen(&restarted)["lastState"]["terminated"]["signal"], 15);
    c.cluster.shutdown().await;
}

/// Why the pod's readiness probe has failed, once it has for a reason that contains `text`.
async fn unhealthy(c: &TestCluster, pod: &str, text: &str) -> String {
    let message = until_some(async || {
        let events = c.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let of_pod = events.into_iter().filter(|e| e.involved_object.name.as_deref() == Some(pod));
        let mut unhealthy = of_pod.filter(|e| e.reason.as_deref() == Some("Unhealthy"));
        unhealthy.find_map(|e| e.message.filter(|message| message.contains(text)))
    });
    message.await
}

#[tokio::test(flavor = "multi_thread")]
async fn https_probes_take_any_certificate_and_grpc_probes_ask_for_health() {
    let Some(c) = cluster().await else { return };
    let started = |pod: &Pod| seen(pod)["started"] == true;
    let pod = |name: &str, kind: &str, probe: Value| {
        let mut container = secure::serving(kind);
        container["readinessProbe"] = probe;
        json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}})
    };
    let port = secure::PORT;
    let https =
        json!({"httpGet": {"scheme": "HTTPS", "path": "/", "port": port}, "periodSeconds": 1, "failureThreshold": 1});
    c.create::<Pod>(pod("https", "tls", https)).await;
    let grpc = json!({"grpc": {"port": port, "service": "shop"}, "periodSeconds": 1, "failureThreshold": 1});
    c.create::<Pod>(pod("grpc", "grpc", grpc)).await;
    let other = json!({"grpc": {"port": port, "service": "unknown"}, "periodSeconds": 1, "failureThreshold": 1});
    c.create::<Pod>(pod("unknown", "grpc", other)).await;
    for name in ["https", "grpc", "unknown"] {
        c.until::<Pod>(name, started).await;
        touch(&c, name, "ready");
    }
    c.ready("https").await;
    c.ready("grpc").await;
    let why = unhealthy(&c, "unknown", "gRPC status").await;
    assert!(why.contains("gRPC status 5"), "{why}");
    assert_eq!(seen(&c.api::<Pod>().get("unknown").await.unwrap())["ready"], false);
    c.cluster.shutdown().await;
}
