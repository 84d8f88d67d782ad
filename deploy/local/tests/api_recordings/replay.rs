//! Sending recorded requests, and comparing the answers.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::api_support::TestServer;
use super::compare::{Names, comparable, compare};
use super::exclusions::Exclusions;
use super::{Outcome, name, stage};

/// How long an answer may take to become the recorded one: what the server does by itself takes a moment.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer may take to end.
const LONGEST: Duration = Duration::from_secs(8);

/// What was answered.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub text: String,
    /// The lines of a watch.
    pub lines: Vec<Value>,
    /// The `ETag`, empty if there is none.
    pub tag: String,
}

/// Runs a case.
pub async fn run(case: Value, excluded: Exclusions) -> Outcome {
    let exchanges = case["exchanges"].as_array().cloned().unwrap_or_default();
    if excluded.whole {
        return Outcome::left_out(exchanges.len());
    }
    let mut outcome = Outcome { exchanges: exchanges.len(), ..Outcome::default() };
    let server = stage::set(&case).await;
    let mut names = Names::default();
    for exchange in &exchanges {
        let number = exchange["n"].as_u64().expect("a number");
        let known = excluded.has(number);
        let started = Instant::now();
        let (answer, different) = loop {
            let answer = send(&server, exchange, &names).await;
            let different = differing(exchange, &answer);
            let again = exchange["method"] == "GET" && !different.is_empty() && !known && started.elapsed() < PATIENCE;
            if !again {
                break (answer, different);
            }
            tokio::task::yield_now().await;
        };
        names.learn(&exchange["response_body"], &answer.body);
        if known {
            outcome.excluded += 1;
            if different.is_empty() && !excluded.is_unsure(number) {
                let line = format!("{} {number} is listed as a known difference and does not differ", name(&case));
                outcome.problems.push(line);
            }
            continue;
        }
        outcome
            .problems
            .extend(different.into_iter().map(|difference| format!("{} {number} {difference}", name(&case))));
    }
    server.api.stop().await;
    outcome
}

/// How an answer differs from the recorded one.
pub fn differing(exchange: &Value, found: &Answer) -> Vec<String> {
    let text = |key: &str| exchange[key].as_str().unwrap_or_default();
    let place = format!("{} {}", text("method"), text("path"));
    let recorded = &exchange["response_body"];
    if exchange["status"] != found.status {
        return vec![format!("{place}: status {}, recorded {}: {}", found.status, exchange["status"], found.text)];
    }
    let mut differences = Vec::new();
    let mut differ = |recorded: &Value, found: &Value| {
        compare(&comparable(recorded), &comparable(found), "", &mut |difference| {
            differences.push(format!("{place}: {difference}"));
        });
    };
    if let Some(lines) = exchange["response_stream"].as_array() {
        let shown = |lines: &[Value]| {
            let lines = lines.iter().map(|line| match line["type"].as_str() {
                Some("BOOKMARK") => json!({"type": "BOOKMARK"}),
                _ => line.clone(),
            });
            Value::Array(lines.collect())
        };
        differ(&shown(lines), &shown(&found.lines));
    } else if !recorded.is_null() {
        differ(recorded, &found.body);
    } else if let Some(text) = exchange["response_body_text"].as_str() {
        match serde_yaml::from_str::<Value>(text).ok().filter(Value::is_object) {
            Some(document) => differ(&document, &serde_yaml::from_str(&found.text).unwrap_or(Value::Null)),
            None => differ(&json!(text), &json!(found.text)),
        }
    }
    differences
}

fn client(server: &TestServer, exchange: &Value) -> Client {
    let headers = &exchange["request_headers"];
    let anonymous = exchange["response_body"]["message"].as_str().is_some_and(|m| m.contains("system:anonymous"));
    if headers["Authorization"].is_null() && !anonymous {
        return server.client.clone();
    }
    let mut config = server.api.client_config().expect("a configuration");
    config.auth_info.token = None;
    Client::try_from(config).expect("a client")
}

pub async fn send(server: &TestServer, exchange: &Value, names: &Names) -> Answer {
    let mut uri = names.translate_text(exchange["path"].as_str().expect("a path"));
    if let Some(query) = exchange["query"].as_str() {
        uri = format!("{uri}?{}", names.translate_query(query));
    }
    let mut request = http::Request::builder().method(exchange["method"].as_str().expect("a method")).uri(uri);
    if exchange["status"] == 304 {
        // The client has what this server would answer; the tag is this server's own.
        let mut first = exchange.clone();
        first["status"] = json!(200);
        let known = Box::pin(send(server, &first, names)).await.tag;
        request = request.header("If-None-Match", known);
    }
    for header in ["Accept", "Content-Type", "Impersonate-User", "Impersonate-Group", "Authorization"] {
        if let Some(value) = exchange["request_headers"][header].as_str() {
            request = request.header(header, names.translate_text(value));
        }
    }
    let text = |key: &str| exchange[key].as_str();
    let body = match (&exchange["request_body"], text("request_body_text"), text("request_body_base64")) {
        (Value::Null, None, None) => Vec::new(),
        (Value::Null, Some(text), _) => names.translate_text(text).into_bytes(),
        (Value::Null, None, Some(packed)) => STANDARD.decode(packed).expect("base64"),
        (body, ..) => names.translate(body).to_string().into_bytes(),
    };
    let request = request.body(Body::from(body)).expect("a request");
    let response = client(server, exchange).send(request).await.expect("an answer");
    let status = response.status().as_u16();
    let tag = response.headers().get("ETag").and_then(|tag| tag.to_str().ok()).unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    let mut stream = response.into_body().into_data_stream();
    let recorded_lines = exchange["response_stream"].as_array().map(Vec::len);
    let enough = |bytes: &[u8]| {
        let wanted = recorded_lines.filter(|_| exchange["stream_ended_by"] == "client");
        wanted.is_some_and(|lines| bytes.iter().filter(|byte| **byte == b'\n').count() >= lines)
    };
    let read = async {
        while !enough(&bytes)
            && let Ok(Some(chunk)) = stream.try_next().await
        {
            bytes.extend_from_slice(&chunk);
        }
    };
    // A watch may stay open; what came is compared.
    let _ = tokio::time::timeout(LONGEST, read).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null), text, lines, tag }
}
