use serde_json::{Value, json};

use crate::validate_json;

fn object(api_version: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "bookstore"}, "spec": spec})
}

fn target(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = json!({
        "destination": {"kind": "ServiceAccount", "name": "bookstore", "namespace": "bookstore"},
        "sources": [{"kind": "ServiceAccount", "name": "bookbuyer", "namespace": "bookbuyer"}],
        "rules": [{"kind": "HTTPRouteGroup", "name": "routes", "matches": ["buy"]}],
    });
    change(&mut spec);
    object("access.smi-spec.io/v1alpha3", "TrafficTarget", spec)
}

fn group(matches: Value) -> Value {
    object("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup", json!({"matches": matches}))
}

fn split(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = json!({
        "service": "bookstore.bookstore.svc.cluster.local",
        "backends": [{"service": "bookstore-v1", "weight": 90}, {"service": "bookstore-v2", "weight": 10}],
    });
    change(&mut spec);
    object("split.smi-spec.io/v1alpha4", "TrafficSplit", spec)
}

fn accepted(object: &Value) {
    let report = validate_json(object);
    assert!(report.is_ok() && report.warnings.is_empty(), "{report}");
}

fn refused(object: &Value, field: &str, says: &str) {
    let report = validate_json(object);
    assert_eq!(report.errors.len(), 1, "{report}");
    let error = report.errors[0].to_string();
    assert_eq!(report.errors[0].field, field, "{error}");
    assert!(error.contains(says), "{error}");
    assert!(error.contains(" bookstore/x: "), "{error}");
}

#[test]
fn good_objects_are_accepted() {
    accepted(&target(|_| {}));
    accepted(&target(|spec| spec["rules"][0] = json!({"kind": "TCPRoute", "name": "tcp"})));
    accepted(&group(json!([
        {"name": "all"},
        {"name": "buy", "pathRegex": "/buy/.*", "methods": ["GET", "POST"], "headers": [{"user-agent": ".*Mozilla.*"}]},
    ])));
    accepted(&object("specs.smi-spec.io/v1alpha4", "TCPRoute", json!({"matches": {"ports": [3306]}})));
    accepted(&object("specs.smi-spec.io/v1alpha4", "TCPRoute", json!({})));
    accepted(&split(|_| {}));
    accepted(&split(|spec| spec["backends"][0]["weight"] = json!(50.0)));
    accepted(&split(|spec| spec["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "routes"}])));
}

#[test]
fn traffic_targets_grant_access_to_their_own_namespace_only() {
    refused(
        &target(|spec| spec["destination"]["namespace"] = json!("other")),
        "spec.destination.namespace",
        "create it in the destination's namespace",
    );
    accepted(&target(|spec| {
        spec["destination"].as_object_mut().unwrap().remove("namespace");
    }));
}

#[test]
fn traffic_targets_know_service_accounts_http_groups_and_tcp_routes() {
    refused(&target(|spec| spec["sources"][0]["kind"] = json!("User")), "spec.sources[0].kind", "ServiceAccount");
    refused(&target(|spec| spec["rules"][0]["kind"] = json!("UDPRoute")), "spec.rules[0].kind", "not supported");
    refused(&target(|spec| spec["rules"][0]["kind"] = json!("GRPCRoute")), "spec.rules[0].kind", "HTTPRouteGroup");
    refused(&target(|spec| spec["rules"][0]["kind"] = json!("TCPRoute")), "spec.rules[0].matches", "remove this list");
    refused(&target(|spec| spec["rules"][0]["matches"] = json!(["a", "a"])), "spec.rules[0].matches[1]", "twice");
}

#[test]
fn route_groups_have_distinct_names_and_usable_expressions() {
    refused(&group(json!([{"name": "a"}, {"name": "a"}])), "spec.matches[1].name", "earlier match");
    refused(&group(json!([{"name": ""}])), "spec.matches[0].name", "by name");
    refused(&group(json!([{"name": "a", "pathRegex": "("}])), "spec.matches[0].pathRegex", "unclosed group");
    refused(&group(json!([{"name": "a", "pathRegex": "(?!x)"}])), "spec.matches[0].pathRegex", "look-around");
    refused(&group(json!([{"name": "a", "pathRegex": "/a)|(?:/b"}])), "spec.matches[0].pathRegex", "unopened group");
    refused(&group(json!([{"name": "a", "pathRegex": "(a{1000}){1000}"}])), "spec.matches[0].pathRegex", "size limit");
    refused(&group(json!([{"name": "a", "methods": ["get"]}])), "spec.matches[0].methods[0]", "upper case");
    refused(
        &group(json!([{"name": "a", "headers": [{"x y": "z"}]}])),
        "spec.matches[0].headers[\"x y\"]",
        "header name",
    );
    refused(&group(json!([{"name": "a", "headers": [{"x": "["}]}])), "spec.matches[0].headers[\"x\"]", "expression");
}

#[test]
fn splits_have_known_services_and_weights() {
    refused(&split(|spec| spec["backends"][0]["weight"] = json!(-1)), "spec.backends[0].weight", "whole number");
    refused(&split(|spec| spec["backends"][0]["weight"] = json!(0.5)), "spec", "not a whole number");
    refused(
        &split(|spec| {
            spec["backends"][0]["weight"] = json!(0);
            spec["backends"][1]["weight"] = json!(0);
        }),
        "spec.backends",
        "positive weight",
    );
    refused(&split(|spec| spec["backends"] = json!([])), "spec.backends", "at least one");
    refused(
        &split(|spec| spec["backends"][1]["service"] = json!("bookstore/bookstore-v1")),
        "spec.backends[1].service",
        "twice",
    );
    refused(&split(|spec| spec["service"] = json!("a.elsewhere")), "spec.service", "another namespace");
    refused(
        &split(|spec| spec["matches"] = json!([{"kind": "TCPRoute", "name": "x"}])),
        "spec.matches[0].kind",
        "HTTPRouteGroup",
    );
    refused(
        &object("specs.smi-spec.io/v1alpha4", "TCPRoute", json!({"matches": {"ports": [70000]}})),
        "spec.matches.ports[0]",
        "1 to 65535",
    );
}

#[test]
fn unknown_fields_and_wrong_shapes_are_refused() {
    refused(&split(|spec| spec["backend"] = json!([])), "spec.backend", "unknown field");
    refused(&target(|spec| spec["rules"][0]["match"] = json!([])), "spec.rules[0].match", "unknown field");
    refused(&split(|spec| spec["backends"] = json!("x")), "spec", "kubectl explain trafficsplit");
}
