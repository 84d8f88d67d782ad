//! What a real kube-apiserver answered, asked again of this one. A case is a file in `recordings/`: requests with their answers.
//!
//! Compared are status, and the body with what is generated (uids, versions, times, field ownership) taken out. Of refusals the
//! reason, the object and the refused fields count; the words only where they are no decoder's or schema's. Exchanges whose
//! answers are known to differ are listed in `recordings/known-differences.txt` with the reason; they are sent, but not compared.

mod api_support;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use http_body_util::BodyExt;
use kube::client::Body;
use regex::Regex;
use serde_json::{Value, json};

/// How long an answer may take to become the recorded one.
const PATIENCE: Duration = Duration::from_secs(5);

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

fn read(case: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(format!("{case}.json"))).expect("the case can be read");
    serde_json::from_str(&text).expect("a case is JSON")
}

/// Known differences: the case and the number of the exchange.
fn known() -> BTreeMap<(String, u64), String> {
    let text = std::fs::read_to_string(directory().join("known-differences.txt")).expect("the list can be read");
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let case = words.next().expect("a case").to_owned();
            let number = words.next().and_then(|n| n.parse().ok()).expect("the number of an exchange");
            ((case, number), words.next().unwrap_or_default().to_owned())
        })
        .collect()
}

/// Keys whose values are made by the server.
const GENERATED: [&str; 15] = [
    "description",
    "lastUpdateTime",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "managedFields",
    "clusterIP",
    "clusterIPs",
    "lastTransitionTime",
    "continue",
    "nodePort",
    "healthCheckNodePort",
    "tolerations",
    "ca.crt",
];

/// A body without what is generated, and with the words of messages that name such things made alike.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let refusal = map.get("kind").is_some_and(|kind| kind == "Status");
            let decoded = refusal && !matches!(map.get("code").and_then(Value::as_u64), Some(403 | 404 | 409));
            let cause = map.contains_key("field") && map.contains_key("reason");
            let kept = map.iter().filter(|(key, value)| {
                !GENERATED.contains(&key.as_str()) && !value.is_null() && !((decoded || cause) && *key == "message")
            });
            Value::Object(kept.map(|(key, value)| (key.clone(), comparable(value))).collect())
        }
        Value::Array(items) => {
            // What a real server adds where it could not go on checking.
            let told = items.iter().filter(|item| item["field"] != "<nil>");
            let mut items: Vec<Value> = told.map(comparable).collect();
            if items.iter().all(|item| item["field"].is_string()) {
                items.sort_by_key(|item| item["field"].to_string());
                items.dedup();
            }
            Value::Array(items)
        }
        Value::String(text) => json!(alike(text)),
        other => other.clone(),
    }
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").expect("a pattern"));
static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b\d{2,}\b").expect("a pattern"));
static AGE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\d+s$").expect("a pattern"));

fn alike(text: &str) -> String {
    if AGE.is_match(text) {
        return "AGE".into();
    }
    NUMBER.replace_all(&UUID.replace_all(text, "UID"), "N").into_owned()
}

/// What a recorded server gave names to, and what this one calls it.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn learn(&mut self, recorded: &Value, found: &Value) {
        // Names are given by the client, but for the random ones.
        let generated = recorded.get("generateName").is_some();
        for key in ["uid", "resourceVersion", "name", "continue"].into_iter().filter(|key| *key != "name" || generated)
        {
            let (recorded, found) = (&recorded[key], &found[key]);
            if let (Some(recorded), Some(found)) = (recorded.as_str(), found.as_str())
                && recorded != found
            {
                self.0.insert(recorded.into(), found.into());
            }
        }
        match (recorded, found) {
            (Value::Object(recorded), Value::Object(found)) => {
                for (key, value) in recorded {
                    self.learn(value, found.get(key).unwrap_or(&Value::Null));
                }
            }
            (Value::Array(recorded), Value::Array(found)) => {
                recorded.iter().zip(found).for_each(|(r, f)| self.learn(r, f));
            }
            _ => {}
        }
    }

    fn translate(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.0.get(text).unwrap_or(text)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.translate(item)).collect()),
            Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), self.translate(v))).collect()),
            other => other.clone(),
        }
    }

    fn translate_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (recorded, found) in self.0.iter().filter(|(recorded, _)| recorded.len() > 8) {
            text = text.replace(recorded, found);
        }
        text
    }

    fn translate_query(&self, query: &str) -> String {
        let translated = query.split('&').map(|pair| match pair.split_once('=') {
            Some((key, value)) => format!("{key}={}", self.0.get(value).map_or(value, String::as_str)),
            None => pair.to_owned(),
        });
        translated.collect::<Vec<_>>().join("&")
    }
}

async fn widgets(server: &api_support::TestServer) {
    let case = read("crd-create-to-established");
    let body = case["exchanges"][1]["request_body"].to_string();
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let request =
        http::Request::post(path).header("Content-Type", "application/json").body(Body::from(body.into_bytes()));
    server.client.send(request.expect("a request")).await.expect("an answer");
    let definitions: kube::Api<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    > = kube::Api::all(server.client.clone());
    let established = kube::runtime::conditions::is_crd_established();
    kube::runtime::wait::await_condition(definitions, "widgets.example.com", established).await.expect("it is served");
}

/// What earlier cases left behind for those about lists.
async fn listed(server: &api_support::TestServer) {
    for i in 0..5 {
        let parity = if i % 2 == 0 { "even" } else { "odd" };
        let labels = json!({"app": "list", "n": i.to_string(), "parity": parity});
        let map = json!({"metadata": {"name": format!("list-{i}"), "labels": labels}, "data": {"i": i.to_string()}});
        let request = http::Request::post("/api/v1/namespaces/rec/configmaps")
            .header("Content-Type", "application/json")
            .body(Body::from(map.to_string().into_bytes()));
        server.client.send(request.expect("a request")).await.expect("an answer");
    }
}

/// Runs a case and gives its differences.
async fn run(case_name: &str, known: &BTreeMap<(String, u64), String>) -> Vec<String> {
    let case = read(case_name);
    let server = api_support::start().await;
    let namespace = r#"{"metadata": {"name": "rec"}}"#.as_bytes().to_vec();
    let request = http::Request::post("/api/v1/namespaces")
        .header("Content-Type", "application/json")
        .body(Body::from(namespace));
    server.client.send(request.expect("a request")).await.expect("an answer");
    let exchanges = case["exchanges"].as_array().expect("a case has exchanges");
    if case_name.starts_with("custom-resource") {
        widgets(&server).await;
    }
    if ["list-", "delete-collection", "partial-"].iter().any(|prefix| case_name.starts_with(prefix)) {
        listed(&server).await;
    }
    let mut names = Names::default();
    let mut differences = Vec::new();
    for exchange in exchanges {
        let number = exchange["n"].as_u64().expect("a number");
        let known = known.contains_key(&(case_name.to_owned(), number));
        let started = Instant::now();
        loop {
            let (status, found) = send(&server, exchange, &names).await;
            let different = differing(exchange, status, &found);
            // What the server does by itself takes a moment: it is asked again.
            let again = exchange["method"] == "GET" && !different.is_empty() && !known && started.elapsed() < PATIENCE;
            if again {
                tokio::task::yield_now().await;
                continue;
            }
            names.learn(&exchange["response_body"], &found);
            if !known {
                differences
                    .extend(different.into_iter().map(|difference| format!("{case_name} {number} {difference}")));
            }
            break;
        }
    }
    server.api.stop().await;
    differences
}

/// How an answer differs from the recorded one.
fn differing(exchange: &Value, status: u16, found: &Value) -> Vec<String> {
    let text = |key: &str| exchange[key].as_str().unwrap_or_default();
    let place = format!("{} {}", text("method"), text("path"));
    let recorded = &exchange["response_body"];
    if exchange["status"] != status {
        return vec![format!("{place}: status {status}, recorded {}: {found}", exchange["status"])];
    }
    let mut differences = Vec::new();
    if !recorded.is_null() {
        compare(&comparable(recorded), &comparable(found), "", &mut |difference| {
            differences.push(format!("{place}: {difference}"));
        });
    }
    differences
}

async fn send(server: &api_support::TestServer, exchange: &Value, names: &Names) -> (u16, Value) {
    let mut uri = names.translate_text(exchange["path"].as_str().expect("a path"));
    if let Some(query) = exchange["query"].as_str() {
        uri = format!("{uri}?{}", names.translate_query(query));
    }
    let mut request = http::Request::builder().method(exchange["method"].as_str().expect("a method")).uri(uri);
    for header in ["Accept", "Content-Type", "If-None-Match"] {
        if let Some(value) = exchange["request_headers"][header].as_str() {
            request = request.header(header, value);
        }
    }
    let body = match (&exchange["request_body"], exchange["request_body_text"].as_str()) {
        (Value::Null, None) => Vec::new(),
        (Value::Null, Some(text)) => names.translate_text(text).into_bytes(),
        (body, _) => names.translate(body).to_string().into_bytes(),
    };
    let response = server.client.send(request.body(Body::from(body)).expect("a request")).await.expect("an answer");
    let status = response.status().as_u16();
    let mut bytes = Vec::new();
    let mut stream = response.into_body().into_data_stream();
    let watched = exchange.get("response_stream").is_some();
    let read = async {
        while let Ok(Some(chunk)) = stream.try_next().await {
            bytes.extend_from_slice(&chunk);
        }
    };
    if watched {
        // Watches are tested elsewhere; here only that they begin.
        drop(read);
        return (status, Value::Null);
    }
    tokio::time::timeout(std::time::Duration::from_secs(10), read).await.expect("the answer ends");
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn compare(recorded: &Value, found: &Value, path: &str, report: &mut dyn FnMut(String)) {
    match (recorded, found) {
        (Value::Object(recorded), Value::Object(found)) => {
            for (key, value) in recorded {
                match found.get(key) {
                    Some(other) => compare(value, other, &format!("{path}.{key}"), report),
                    None => report(format!("{path}.{key} is missing, recorded {value}")),
                }
            }
            for (key, value) in found.iter().filter(|(key, _)| !recorded.contains_key(*key)) {
                report(format!("{path}.{key} is too much: {value}"));
            }
        }
        (Value::Array(recorded), Value::Array(found)) if recorded.len() == found.len() => {
            for (i, (recorded, found)) in recorded.iter().zip(found).enumerate() {
                compare(recorded, found, &format!("{path}[{i}]"), report);
            }
        }
        _ if recorded == found => {}
        // Names with random ends.
        (Value::String(a), Value::String(b))
            if a.len() == b.len() && a.len() > 5 && a[..a.len() - 5] == b[..b.len() - 5] => {}
        _ => report(format!("{path} is {found}, recorded {recorded}")),
    }
}

#[tokio::test]
async fn recorded_requests_are_answered_as_by_a_real_server() {
    let known = known();
    let only = std::env::var("CASE").ok();
    let mut cases: Vec<String> = std::fs::read_dir(directory())
        .expect("the recordings are there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".json").map(ToOwned::to_owned))
        .filter(|case| only.as_ref().is_none_or(|only| only == case))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut differences = Vec::new();
    for case in &cases {
        differences.extend(run(case, &known).await);
    }
    assert!(
        differences.is_empty(),
        "{} differences in {} cases:\n{}",
        differences.len(),
        cases.len(),
        differences.join("\n")
    );
}
