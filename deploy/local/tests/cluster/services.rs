//! Services: readiness makes an endpoint, a name leads to an address, an address to a pod.

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::net::TcpStream;

use crate::helpers::{TestCluster, cluster, endpoints, get, output, patiently, serving, shell, until_some};

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
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => return,
                // For a moment the address still leads to the pod that is gone.
                _ => tokio::task::yield_now().await,
            }
        }
    });
    refused.await.expect("a service without endpoints refuses connections");
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

/// A pod that serves, ready, and its address.
async fn web(c: &TestCluster) -> String {
    let pod = json!({"metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [serving("hello")]}});
    c.create::<Pod>(pod).await;
    c.ready("web").await.status.unwrap().pod_ip.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_keeps_its_address_through_a_service() {
    let Some(c) = cluster().await else { return };
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    c.create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": ports}}))
        .await;
    let own = web(&c).await;
    let said =
        output(&c, "client", "until curl -sf http://web/client; do sleep 0.1; done; echo; hostname -I | cut -d' ' -f1")
            .await;
    let (seen, mine) = said.trim().split_once('\n').unwrap();
    assert_eq!(seen, mine, "the server sees the client's own address");
    let address = c.api::<Service>().get("web").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let from_node = c.cluster.net().dial(format!("{address}:80").parse().unwrap()).await.unwrap();
    assert_eq!(get(from_node, "/client").await.unwrap(), "10.244.0.1");
    assert_eq!(c.cluster.net().addresses()[0].to_string(), "10.244.0.1");
    assert_ne!(own, mine);
    c.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_reaches_load_balancers_and_node_ports() {
    let Some(c) = cluster().await else { return };
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"},
        {"name": "ask", "port": 5300, "targetPort": 8080, "protocol": "UDP"}]);
    let spec =
        json!({"type": "LoadBalancer", "selector": {"app": "web"}, "ports": ports, "sessionAffinity": "ClientIP"});
    c.create::<Service>(json!({"metadata": {"name": "web"}, "spec": spec})).await;
    web(&c).await;
    let given = |service: &Service| {
        let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
        ingress.first()?.ip.clone()
    };
    let service = c.until::<Service>("web", |service| given(service).is_some()).await;
    let ip = given(&service).unwrap();
    let answer = until_some(async || get(TcpStream::connect(format!("{ip}:80")).await.ok()?, "/").await).await;
    assert_eq!(answer, "hello");
    // The answer may have to come from another node, so the client is the node.
    let seen = get(TcpStream::connect(format!("{ip}:80")).await.unwrap(), "/client").await.unwrap();
    assert_eq!(seen, "10.244.0.1");
    let asker = tokio::net::UdpSocket::bind("0.0.0.0:0").await.unwrap();
    asker.connect(format!("{ip}:5300")).await.unwrap();
    asker.send(b"?").await.unwrap();
    let mut buffer = [0; 100];
    let length = patiently(asker.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer[..length], b"hello");

    let node: k8s_openapi::api::core::v1::Node = kube::Api::all(c.cluster.client()).get("local").await.unwrap();
    let outer = node.status.unwrap().addresses.unwrap().into_iter().find(|a| a.type_ == "ExternalIP").unwrap().address;
    let port = service.spec.unwrap().ports.unwrap()[0].node_port.unwrap();
    let answer = until_some(async || get(TcpStream::connect(format!("{outer}:{port}")).await.ok()?, "/").await).await;
    assert_eq!(answer, "hello");
    let id = std::fs::read_to_string(c.dir.path().join("cluster-id")).unwrap();
    let interface = std::path::PathBuf::from(format!("/sys/class/net/fsm-{id}"));
    assert!(interface.exists());
    c.cluster.shutdown().await;
    // The kernel takes a namespace apart, and this interface with it, in its own time.
    until_some(async || (!interface.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_name_is_one_of_the_pods_own_namespace() {
    let Some(c) = cluster().await else { return };
    let namespaces: kube::Api<Namespace> = kube::Api::all(c.cluster.client());
    let other = serde_json::from_value(json!({"metadata": {"name": "other"}})).unwrap();
    namespaces.create(&PostParams::default(), &other).await.unwrap();
    let elsewhere: kube::Api<Service> = kube::Api::namespaced(c.cluster.client(), "other");
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    let made = elsewhere.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let ip = made.spec.unwrap().cluster_ip.unwrap();
    let script = "until getent ahostsv4 web.other >/dev/null; do sleep 0.1; done; getent ahostsv4 web || echo unknown; \
        getent ahostsv4 web.other | head -1 | cut -d' ' -f1; getent ahostsv4 web.other.svc.cluster.local | head -1 | cut -d' ' -f1";
    assert_eq!(output(&c, "client", script).await, format!("unknown\n{ip}\n{ip}\n"));
    c.cluster.shutdown().await;
}
