//! What a case finds: the namespace, definitions, and what other cases left behind on the recorded server.

use std::collections::BTreeSet;

use http::Method;
use kube::client::Body;
use serde_json::{Value, json};

use super::api_support::{self, TestServer};
use super::{name, pack};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A server as the recorded one was when the case began, as far as the case tells.
pub async fn set(case: &Value) -> TestServer {
    let server = api_support::start().await;
    server.api.set_node(std::sync::Arc::new(api_support::node::ThisMachine));
    send(&server, Method::POST, "/api/v1/namespaces", &json!({"metadata": {"name": "rec"}})).await;
    let text = case.to_string();
    if text.contains("smi-spec.io") {
        for entry in
            std::fs::read_dir(pack::directory().join("../../../crds")).expect("the mesh's definitions").flatten()
        {
            let yaml = std::fs::read_to_string(entry.path()).expect("a definition can be read");
            let definition: Value = serde_yaml::from_str(&yaml).expect("a definition is YAML");
            define(&server, &definition).await;
        }
    }
    if text.contains("example.com/v1") && !name(case).contains("crd") {
        define(&server, &pack::case("http/crd-create-to-established")["exchanges"][1]["request_body"]).await;
    }
    if ["/list-", "/delete-collection", "/partial-", "/table-include", "/unknown-query"]
        .iter()
        .any(|part| name(case).contains(part))
    {
        for i in 0..5 {
            let parity = if i % 2 == 0 { "even" } else { "odd" };
            let labels = json!({"app": "list", "n": i.to_string(), "parity": parity});
            let map =
                json!({"metadata": {"name": format!("list-{i}"), "labels": labels}, "data": {"i": i.to_string()}});
            send(&server, Method::POST, "/api/v1/namespaces/rec/configmaps", &map).await;
        }
    }
    for object in left_behind(case) {
        seed(&server, &object).await;
    }
    server
}

async fn define(server: &TestServer, definition: &Value) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    send(server, Method::POST, DEFINITIONS, definition).await;
    let definitions: kube::Api<CustomResourceDefinition> = kube::Api::all(server.client.clone());
    let established = kube::runtime::conditions::is_crd_established();
    let wanted = definition["metadata"]["name"].as_str().expect("a definition has a name");
    kube::runtime::wait::await_condition(definitions, wanted, established).await.expect("it is served");
}

/// Objects of the namespace that the case reads and nobody in it creates.
fn left_behind(case: &Value) -> Vec<Value> {
    let mut known: BTreeSet<(String, String)> = BTreeSet::new();
    let mut found = Vec::new();
    for exchange in case["exchanges"].as_array().into_iter().flatten() {
        let (method, path) =
            (exchange["method"].as_str().unwrap_or_default(), exchange["path"].as_str().unwrap_or_default());
        let answer = &exchange["response_body"];
        if method == "GET" {
            let kind = answer["kind"].as_str().unwrap_or_default();
            let items = answer["items"].as_array().map_or_else(
                || vec![answer.clone()],
                |items| {
                    let shown = |item: &Value| {
                        let mut item = item.clone();
                        item["kind"] = json!(kind.trim_end_matches("List"));
                        item["apiVersion"] = answer["apiVersion"].clone();
                        item
                    };
                    items.iter().map(shown).collect()
                },
            );
            for item in items {
                if is_left(&item) && known.insert(identity(&item)) {
                    found.push(item);
                }
            }
        }
        // What a write answers with, or is told to make, is the case's own from then on.
        for body in [&exchange["request_body"], answer] {
            known.insert(identity(body));
        }
        if let Some((_, last)) = path.rsplit_once('/') {
            known.insert((String::new(), last.to_owned()));
        }
    }
    found
}

fn is_left(item: &Value) -> bool {
    let (kind, item_name) =
        (item["kind"].as_str().unwrap_or_default(), item["metadata"]["name"].as_str().unwrap_or_default());
    matches!(kind, "ConfigMap" | "Deployment" | "Pod" | "Secret" | "Service" | "TrafficSplit" | "Widget")
        && item["metadata"]["namespace"] == "rec"
        && item_name != "kube-root-ca.crt"
        && item["metadata"]["deletionTimestamp"].is_null()
}

fn identity(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The path of a collection.
pub fn collection(object: &Value) -> String {
    let version = object["apiVersion"].as_str().unwrap_or("v1");
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let plural = format!("{}s", object["kind"].as_str().unwrap_or_default().to_lowercase());
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{root}/namespaces/{namespace}/{plural}"),
        None => format!("{root}/{plural}"),
    }
}

/// Makes an object as it was, status included.
pub async fn seed(server: &TestServer, object: &Value) {
    let mut made = object.clone();
    if let Some(metadata) = made["metadata"].as_object_mut() {
        metadata.retain(|key, _| {
            ["name", "generateName", "namespace", "labels", "annotations", "finalizers"].contains(&key.as_str())
        });
    }
    if made["kind"] == "Service" {
        // The recorded server had another range of addresses.
        let spec = made["spec"].as_object_mut().expect("a Service has a spec");
        spec.retain(|key, _| !["clusterIP", "clusterIPs"].contains(&key.as_str()));
    }
    let path = collection(object);
    send(server, Method::POST, &path, &made).await;
    if !object["status"].is_null() {
        let item = object["metadata"]["name"].as_str().unwrap_or_default();
        send(server, Method::PATCH, &format!("{path}/{item}/status"), &json!({"status": object["status"]})).await;
    }
}

/// Sends something that is expected to go well or not to matter.
pub async fn send(server: &TestServer, method: Method, path: &str, body: &Value) -> u16 {
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", media);
    let request = request.body(Body::from(body.to_string().into_bytes())).expect("a request");
    server.client.send(request).await.expect("an answer").status().as_u16()
}
