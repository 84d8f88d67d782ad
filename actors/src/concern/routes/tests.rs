use serde_json::json;

use super::*;
use crate::fixture::*;

fn last(history: &History) -> Vec<String> {
    drive::<Routes>(history).1.pop().unwrap()
}

const BUYER: &str = "for bookbuyer/bookbuyer";

#[test]
fn a_changed_endpoint_is_one_change() {
    let mut history = History::bookstore();
    history.apply(slice("bookstore", "bookstore-v2", &[("v2-0", "10.0.0.4", false)]));
    assert_eq!(last(&history), [format!("+Endpoints/bookstore/bookstore-v2-1 {BUYER}")]);
}

#[test]
fn a_new_pod_is_told_who_it_is_and_its_callers_where_it_is() {
    let mut history = History::bookstore();
    history.apply(pod("bookstore", "v2-1", "bookstore-v2", "10.0.0.5"));
    assert_eq!(last(&history), ["+Workload/workload of bookstore/v2-1"]);
    history.apply(slice("bookstore", "bookstore-v2", &[("v2-0", "10.0.0.4", true), ("v2-1", "10.0.0.5", true)]));
    // Its ports are known now; those of the other pod are the same as before.
    let expected =
        [format!("+Endpoints/bookstore/bookstore-v2-1 {BUYER}"), "+Workload/workload of bookstore/v2-1".to_owned()];
    assert_eq!(last(&history), expected);
}

#[test]
fn a_services_new_protocol_concerns_its_callers_and_its_pods() {
    let mut history = History::bookstore();
    let mut tcp = service("bookstore", "bookstore-v1", "10.96.0.2");
    tcp["spec"]["ports"][0]["appProtocol"] = json!("grpc");
    history.apply(tcp);
    // The pod's port stays HTTP, since another service that comes first says so.
    assert_eq!(last(&history), [format!("+Service/bookstore/bookstore-v1 {BUYER}")]);
    let mut tcp = service("bookstore", "bookstore", "10.96.0.1");
    tcp["spec"]["ports"][0]["appProtocol"] = json!("grpc");
    history.apply(tcp);
    let expected = [
        format!("+Service/bookstore/bookstore {BUYER}"),
        "+Workload/workload of bookstore/v1-0".to_owned(),
        "+Workload/workload of bookstore/v2-0".to_owned(),
    ];
    assert_eq!(last(&history), expected);
}

#[test]
fn a_service_that_is_excluded_is_not_part_of_the_mesh() {
    let gone = ["-Service/bookstore/bookstore-v1", "-Endpoints/bookstore/bookstore-v1-1"];
    let mut history = History::bookstore();
    let mut excluded = service("bookstore", "bookstore-v1", "10.96.0.2");
    excluded["metadata"]["annotations"] = json!({"flomesh.io/service-exclusion": "true"});
    history.apply(excluded);
    assert_eq!(last(&history)[..2], gone);

    let mut history = History::bookstore();
    let mut namespace = namespace_of_mesh("bookstore");
    namespace["metadata"]["annotations"] = json!({"flomesh.io/service-exclusion-list": "other, bookstore-v1"});
    history.apply(namespace);
    assert_eq!(last(&history)[..2], gone);
}

#[test]
fn a_namespace_that_leaves_the_mesh_takes_everything_along() {
    let mut history = History::bookstore();
    let mut namespace = namespace_of_mesh("bookstore");
    namespace["metadata"]["labels"]["flomesh.io/ignore"] = json!("true");
    history.apply(namespace);
    let changes = last(&history);
    assert_eq!(changes.len(), 8, "{changes:?}");
    assert!(changes.iter().all(|change| change.starts_with('-')), "{changes:?}");
}

#[test]
fn a_tcp_route_is_for_the_servers_that_it_is_allowed_at() {
    let mut history = History::bookstore();
    history.apply(json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "TCPRoute",
        "metadata": {"namespace": "bookstore", "name": "tcp"}, "spec": {"matches": {"ports": [8080]}}}));
    assert_eq!(last(&history), ["+TcpRoute/bookstore/tcp for "]);
    let mut with_tcp = target("v1", "bookstore-v1", &["bookbuyer"]);
    with_tcp["spec"]["rules"] = json!([{"kind": "TCPRoute", "name": "tcp"}]);
    history.apply(with_tcp);
    let expected = [
        "+InboundPolicy/bookstore/v1 for bookstore/bookstore-v1",
        "+RouteGroup/bookstore/routes for bookstore/bookstore-v2",
        "+TcpRoute/bookstore/tcp for bookstore/bookstore-v1",
    ];
    assert_eq!(last(&history), expected);
}

#[test]
fn a_route_group_that_a_split_is_restricted_to_is_for_its_clients_too() {
    let mut history = History::bookstore();
    let mut restricted = split(1, 1);
    restricted["spec"]["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    history.apply(restricted);
    let servers = "bookstore/bookstore-v1, bookstore/bookstore-v2";
    assert_eq!(last(&history), [format!("+RouteGroup/bookstore/routes for bookbuyer/bookbuyer, {servers}")]);
    history.apply(split(1, 1));
    assert_eq!(last(&history), [format!("+RouteGroup/bookstore/routes for {servers}")]);
}

/// The work for a change must not grow with the mesh.
#[test]
fn in_a_larger_mesh_a_change_is_as_small() {
    let mut history = History::bookstore();
    for index in 0..50 {
        let (pod_name, name) = (format!("other-{index}"), format!("service-{index}"));
        history.apply(pod("bookstore", &pod_name, &name, &format!("10.0.9.{index}")));
        history.apply(service("bookstore", &name, &format!("10.96.9.{index}")));
        history.apply(slice("bookstore", &name, &[(&pod_name, &format!("10.0.9.{index}"), true)]));
        history.apply(target(&format!("t{index}"), &name, &["bookthief"]));
    }
    history.apply(slice("bookstore", "service-7", &[]));
    let expected = [
        "+Endpoints/bookstore/service-7-1 for ",
        "+Service/bookstore/service-7 for ",
        "+Workload/workload of bookstore/other-7",
    ];
    let mut changes = last(&history);
    changes.sort();
    assert_eq!(changes, expected);
}
