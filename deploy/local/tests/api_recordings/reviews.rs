//! Recorded reviews: what webhooks are asked when something is done.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::compare::{Names, compare};
use super::exclusions::Exclusions;
use super::replay::send;
use super::webhooks::{CONFIGURATIONS, Recorded, question};
use super::{Outcome, stage};

/// Runs a case: what is done, with a mutating and a validating webhook that hear of it.
pub async fn run(case: Value, excluded: Exclusions) -> Outcome {
    if excluded.whole {
        return Outcome::left_out(1);
    }
    let server = stage::set(&case).await;
    let calls = case["calls"].as_array().cloned().unwrap_or_default();
    let made = &case["trigger"]["body"]["metadata"]["name"];
    let making = case["trigger"]["method"] == "POST";
    for object in objects_before(&calls).into_iter().filter(|object| !making || object["metadata"]["name"] != *made) {
        stage::seed(&server, &object).await;
    }
    let hook = Recorded::start(calls.clone()).await;
    let mut problems = Vec::new();
    for kind in ["mutating", "validating"] {
        let path = format!("{CONFIGURATIONS}/{kind}webhookconfigurations");
        let status = stage::send(&server, Method::POST, &path, &configuration(kind, &calls, &hook)).await;
        assert_eq!(status, 201, "the {kind} webhook is registered");
    }
    let exchange = exchange(&case["trigger"], &calls);
    let answer = send(&server, &exchange, &Names::default()).await;
    if exchange["status"] != answer.status {
        problems.push(format!("status {}, recorded {}: {}", answer.status, exchange["status"], answer.text));
    }
    let asked = hook.asked();
    if asked.len() != calls.len() {
        problems.push(format!("the webhooks were asked {} times, recorded {}", asked.len(), calls.len()));
    }
    for (call, asked) in calls.iter().zip(&asked) {
        let place = format!("{} review", call["webhook"].as_str().unwrap_or_default());
        compare(&question(&call["request"]), &question(asked), &place, &mut |difference| problems.push(difference));
    }
    server.api.stop().await;
    Outcome::of_one(&case, 1, &excluded, problems)
}

/// What was there before: what the reviews show as old, each object as it was first.
fn objects_before(calls: &[Value]) -> Vec<Value> {
    let mut known = BTreeSet::new();
    let old = calls.iter().map(|call| &call["request"]["oldObject"]).filter(|object| object.is_object());
    old.filter(|object| known.insert(object["metadata"]["name"].to_string())).cloned().collect()
}

/// A configuration for what was reviewed, and for nothing else.
fn configuration(kind: &str, calls: &[Value], hook: &Recorded) -> Value {
    let rules: Vec<Value> = calls
        .iter()
        .map(|call| {
            let request = &call["request"];
            let (resource, version) = (&request["resource"]["resource"], &request["resource"]["version"]);
            let resource = match request["subResource"].as_str() {
                Some(sub) => json!(format!("{}/{sub}", resource.as_str().unwrap_or_default())),
                None => resource.clone(),
            };
            json!({"apiGroups": [request["resource"]["group"]], "apiVersions": [version], "operations": [request["operation"]],
                "resources": [resource]})
        })
        .collect();
    let title = if kind == "mutating" { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
    let url = format!("https://{}/{kind}/allow", hook.address);
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": title, "metadata": {"name": "recorded"},
        "webhooks": [{"name": "recorded.example.com", "clientConfig": {"url": url, "caBundle": hook.bundle}, "rules": rules,
            "sideEffects": "None", "admissionReviewVersions": ["v1"]}]})
}

/// What was done, as an exchange. Of a kubectl command only the object it made is recorded.
fn exchange(trigger: &Value, calls: &[Value]) -> Value {
    if let Some(path) = trigger["path"].as_str() {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        return json!({"method": trigger["method"], "path": path, "query": query, "status": trigger["status"],
            "request_headers": {"Content-Type": trigger["content_type"]}, "request_body": trigger["body"]});
    }
    let request = &calls[0]["request"];
    let made = &request["object"];
    let mut body = json!({"metadata": {"name": made["metadata"]["name"], "labels": made["metadata"]["labels"]}});
    if let Some(container) = made["spec"]["containers"].get(0) {
        body["spec"] = json!({"containers": [{"name": container["name"], "image": container["image"]}]});
    }
    let options = request["options"].as_object().into_iter().flatten();
    let query: Vec<String> = options
        .filter(|(key, _)| ["fieldManager", "fieldValidation", "dryRun"].contains(&key.as_str()))
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str().or_else(|| value[0].as_str())?)))
        .collect();
    let path = format!("/api/v1/namespaces/rec/{}", request["resource"]["resource"].as_str().unwrap_or_default());
    json!({"method": "POST", "path": path, "query": query.join("&"), "status": 201, "request_headers": {}, "request_body": body})
}
