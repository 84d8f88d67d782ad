//! Recorded watches. What was done to the objects is read off the events: who was ADDED was created, who was MODIFIED was written
//! as it then was, who was DELETED was deleted.

use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use http::Method;
use kube::client::Body;
use serde_json::{Value, json};

use super::api_support::TestServer;
use super::compare::{comparable, compare};
use super::exclusions::Exclusions;
use super::{Outcome, stage};

const PATIENCE: Duration = Duration::from_secs(10);
/// What comes so early in a recorded stream existed when it began.
const BEGINNING_MS: f64 = 80.0;

/// Runs a watch and does what makes its events.
pub async fn run(case: Value, excluded: Exclusions) -> Outcome {
    let events = case["events"].as_array().cloned().unwrap_or_default();
    if excluded.whole {
        return Outcome::left_out(1);
    }
    let problems = replay(&case, &events).await;
    Outcome::of_one(&case, 1, &excluded, problems)
}

async fn replay(case: &Value, events: &[Value]) -> Vec<String> {
    let server = stage::set(case).await;
    let early = |event: &&Value| event["t_ms"].as_f64().unwrap_or_default() < BEGINNING_MS;
    for event in events.iter().filter(early).filter(|event| event["event"]["type"] == "ADDED") {
        let object = whole(&event["event"]["object"], case);
        if object["metadata"]["name"] != "kube-root-ca.crt" {
            stage::seed(&server, &object).await;
        }
    }
    let path = case["request"]["path"].as_str().expect("a path");
    let query = from_here(&server, path, case["request"]["query"].as_str().unwrap_or_default()).await;
    let accept = case["request"]["accept"].as_str().unwrap_or("application/json");
    let request = http::Request::get(format!("{path}?{query}")).header("Accept", accept);
    let response = server.client.send(request.body(Body::empty()).expect("a request")).await.expect("an answer");
    if case["status"] != response.status().as_u16() {
        return vec![format!("status {}, recorded {}", response.status(), case["status"])];
    }
    let stream = http_body_util::BodyExt::into_data_stream(response.into_body()).map_err(std::io::Error::other);
    let mut lines = stream.into_async_read().lines();
    let mut problems = Vec::new();
    for event in events {
        let recorded = &event["event"];
        if !early(&event) {
            act(&server, recorded, case).await;
        }
        let line = match tokio::time::timeout(PATIENCE, lines.try_next()).await {
            Ok(Ok(Some(line))) => line,
            other => {
                problems.push(format!("instead of {}: {:?}", recorded["type"], other.map(|_| "the end of the stream")));
                break;
            }
        };
        let found: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
        compare(&shown(recorded), &shown(&found), "", &mut |difference| problems.push(difference));
    }
    drop(lines);
    server.api.stop().await;
    problems
}

/// An event to compare. Of bookmarks only what they mark, and the kind.
fn shown(event: &Value) -> Value {
    if event["type"] != "BOOKMARK" {
        return comparable(event);
    }
    let object = &event["object"];
    json!({"type": "BOOKMARK", "kind": object["kind"], "apiVersion": object["apiVersion"],
        "marks": object["metadata"]["annotations"]["k8s.io/initial-events-end"]})
}

/// An object as it was written; a table shows it in its row.
fn whole(object: &Value, case: &Value) -> Value {
    let row = &object["rows"][0]["object"];
    let mut object = if row.is_null() { object.clone() } else { row.clone() };
    if object["kind"] == "PartialObjectMetadata" {
        let smi = case["request"]["path"].as_str().is_some_and(|path| path.contains("smi-spec"));
        object["kind"] = json!(if smi { "TrafficSplit" } else { "ConfigMap" });
        object["apiVersion"] = json!(if smi { "split.smi-spec.io/v1alpha4" } else { "v1" });
    }
    object
}

/// A query that begins where this server is.
async fn from_here(server: &TestServer, path: &str, query: &str) -> String {
    // The deprecated paths know watches only.
    let request = http::Request::get(path.replace("/watch/", "/")).body(Vec::new()).expect("a request");
    let list: Value = server.client.request(request).await.unwrap_or_default();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    let pieces = query.split('&').map(|piece| match piece.split_once('=') {
        Some(("resourceVersion", recorded)) if recorded != "0" => format!("resourceVersion={version}"),
        _ => piece.to_owned(),
    });
    pieces.collect::<Vec<_>>().join("&")
}

/// Does what an event tells of.
async fn act(server: &TestServer, event: &Value, case: &Value) {
    let object = whole(&event["object"], case);
    let item = format!("{}/{}", stage::collection(&object), object["metadata"]["name"].as_str().unwrap_or_default());
    match event["type"].as_str() {
        Some("ADDED") => stage::seed(server, &object).await,
        Some("MODIFIED") => {
            let current: Value = server
                .client
                .request(http::Request::get(&item).body(Vec::new()).expect("a request"))
                .await
                .unwrap_or_default();
            let deleted = |object: &Value| !object["metadata"]["deletionTimestamp"].is_null();
            if deleted(&object) && !deleted(&current) {
                stage::send(server, Method::DELETE, &item, &json!({})).await;
                return;
            }
            let mut patch = json!({"metadata": {"labels": object["metadata"]["labels"], "annotations": object["metadata"]["annotations"],
                "finalizers": object["metadata"]["finalizers"]}});
            for part in ["data", "spec"] {
                if !object[part].is_null() {
                    patch[part] = object[part].clone();
                }
            }
            stage::send(server, Method::PATCH, &item, &patch).await;
        }
        Some("DELETED") => {
            let finalizers = json!({"metadata": {"finalizers": null}});
            stage::send(server, Method::PATCH, &item, &finalizers).await;
            stage::send(server, Method::DELETE, &item, &json!({"gracePeriodSeconds": 0})).await;
        }
        _ => {}
    }
}
