//! Proxies follow the mesh.

use fsm_proxy_config::discovery::Status as Detail;
use tonic::Code;

use super::*;

#[tokio::test]
async fn a_proxy_follows_the_mesh_and_its_acknowledgements_are_facts() {
    let mesh = Mesh::bookstore(Options { digest_every: 1, ..Options::default() }).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.run_next().await;
    assert_eq!(first.removed_resources, Vec::<String>::new());
    let ack = mesh.acked(&first).await;
    assert_eq!(ack.proxy, name(BUYER));
    assert_eq!(ack.digest, buyer.config.digest());

    let seq = mesh.apply(split(50, 50)).await;
    let next = buyer.run_next().await;
    assert_eq!(next.resources.len(), 1);
    assert_eq!(next.resources[0].name, "Split/bookstore/bookstore-split");
    assert_eq!(next.resources[0].version, seq.to_string());
    assert_eq!(next.traceparent, format!("00-{}-{}-01", "07".repeat(16), "09".repeat(8)));
    mesh.acked(&next).await;

    let catalog = mesh.plane.reached(mesh.log.last()).await;
    let status = catalog.proxies().get(&name(BUYER)).unwrap();
    assert!(status.is_connected());
    assert_eq!(status.acked.map(|(_, digest)| digest), Some(buyer.config.digest()));
    mesh.assert_replays(2).await;

    let before = mesh.log.last();
    drop(buyer);
    mesh.fact(before, |fact| match fact {
        Fact::Proxy(fact) if fact.phase == ProxyPhase::Disconnected => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_slow_proxy_gets_the_newest_state_next() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.take().await;
    for weight in 1..=5 {
        mesh.apply(split(weight, 100)).await;
    }
    let last = mesh.apply(service("bookstore", "bookstore", "10.96.0.77")).await;
    // The first version is still on its way; what came meanwhile comes as one.
    buyer.ack_with(&first.nonce, buyer.config.digest()).await;
    let next = buyer.run_next().await;
    assert_eq!(next.nonce, last.to_string());
    let changed: Vec<&str> = next.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(changed, ["Service/bookstore/bookstore", "Split/bookstore/bookstore-split"]);
    mesh.acked(&next).await;
    assert_eq!(buyer.config.resources, mesh.recomputed().await.config_of(&name(BUYER)).unwrap().resources);
    mesh.assert_replays(2).await;
}

#[tokio::test]
async fn a_reconnect_brings_only_what_changed_meanwhile() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.run_next().await;
    mesh.acked(&first).await;
    let config = buyer.config.clone();
    drop(buyer);
    mesh.apply(split(1, 1)).await;
    let mut buyer = Proxy::open(&mesh, BUYER, Some("bookbuyer/bookbuyer"), config).await.unwrap();
    let first = buyer.run_next().await;
    assert_eq!(first.resources.len(), 1);
    assert_eq!(first.resources[0].name, "Split/bookstore/bookstore-split");
    mesh.acked(&first).await;
    mesh.assert_replays(2).await;
}

#[tokio::test]
async fn a_proxy_that_was_out_of_the_mesh_begins_anew() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    buyer.run_next().await;
    mesh.fact(Seq::ZERO, is_ack).await;
    let mut outside = namespace_of_mesh("bookbuyer");
    outside["metadata"]["labels"] = serde_json::json!({});
    mesh.apply(outside).await;
    let gone = Fact::deleted("split.smi-spec.io/v1alpha4/TrafficSplit", &split(1, 1));
    mesh.plane.facts().append(&gone, TraceContext::default()).await.unwrap();
    mesh.apply(namespace_of_mesh("bookbuyer")).await;
    let status = buyer.responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted);
    let mut buyer = Proxy::open(&mesh, BUYER, Some("bookbuyer/bookbuyer"), buyer.config.clone()).await.unwrap();
    let first = buyer.run_next().await;
    assert_eq!(first.removed_resources, ["Split/bookstore/bookstore-split"]);
    mesh.acked(&first).await;
    mesh.assert_replays(2).await;
}

#[tokio::test]
async fn a_configuration_from_another_history_is_replaced() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut config = mesh.plane.config_of(&name(BUYER)).await.unwrap();
    // The same names and versions, but other content.
    config.resources.values_mut().for_each(|entry| entry.bytes = Bytes::from_static(b"other"));
    config.seq = 1;
    let before = mesh.log.last();
    let mut buyer = Proxy::open(&mesh, BUYER, Some("bookbuyer/bookbuyer"), config).await.unwrap();
    assert!(buyer.run_next().await.resources.is_empty());
    let nack = mesh.fact(before, is_nack).await;
    assert!(nack.error.contains("sent again in full"), "{}", nack.error);
    let full = buyer.run_next().await;
    mesh.acked(&full).await;
    assert_eq!(buyer.config.resources, mesh.plane.config_of(&name(BUYER)).await.unwrap().resources);
    mesh.assert_replays(1).await;
}

#[tokio::test]
async fn a_refusal_is_a_fact_and_the_next_change_brings_all_of_it() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    let first = buyer.run_next().await;
    mesh.acked(&first).await;
    let before = mesh.apply(split(2, 1)).await;
    let old = buyer.config.clone();
    let refused = buyer.take().await;
    let error_detail = Some(Detail { code: 3, message: "does not compile".to_owned() });
    let nack = DeltaDiscoveryRequest { response_nonce: refused.nonce, error_detail, ..Default::default() };
    buyer.requests.send(nack).await.unwrap();
    buyer.config = old;
    assert_eq!(mesh.fact(before, is_nack).await.error, "does not compile");
    mesh.apply(service("bookstore", "bookstore", "10.96.0.78")).await;
    assert_eq!(buyer.run_next().await.resources.len(), 2);
    assert_eq!(buyer.config.resources, mesh.plane.config_of(&name(BUYER)).await.unwrap().resources);
}

#[tokio::test]
async fn only_the_pods_own_identity_is_told_what_is_for_it() {
    let mesh = Mesh::bookstore(Options { patience: Duration::from_millis(50), ..Options::default() }).await;
    let refused = |pod: &'static str, account: Option<&'static str>| {
        let mesh = &mesh;
        async move { Proxy::open(mesh, pod, account, ConfigSet::default()).await.err().unwrap() }
    };
    assert_eq!(refused(BUYER, None).await.code(), Code::Unauthenticated);
    let status = refused(BUYER, Some("bookthief/bookthief")).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("the certificate says spiffe://cluster.local/ns/bookthief/sa/bookthief"),
        "{status:?}"
    );
    let status = refused("bookbuyer/nobody", Some("bookbuyer/bookbuyer")).await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("no pod bookbuyer/nobody"), "{status:?}");
    assert_eq!(refused("bookbuyer", Some("bookbuyer/bookbuyer")).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_proxy_may_come_before_its_pod_is_known() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let open = Proxy::open(&mesh, "bookbuyer/late", Some("bookbuyer/late"), ConfigSet::default());
    let (opened, _) = tokio::join!(open, mesh.apply(pod("bookbuyer", "late", "late", "10.0.0.9")));
    assert!(opened.unwrap().take().await.resources.iter().any(|resource| resource.name == "Workload/workload"));
}
