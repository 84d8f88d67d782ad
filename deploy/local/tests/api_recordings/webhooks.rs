//! Recorded webhooks: they answer again what they answered, and the API server does with it what the real one did.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Outcome;
use super::compare::{Names, comparable, compare};
use super::exclusions::Exclusions;
use super::replay::{differing, send};
use super::stage;

pub const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// Runs a case: one request, the webhook it is told to, and what was made of its answer.
pub async fn run(case: Value, excluded: Exclusions) -> Outcome {
    let exchanges = case["exchanges"].as_array().cloned().unwrap_or_default();
    if excluded.whole {
        return Outcome::left_out(exchanges.len());
    }
    let server = stage::set(&json!({"case": case["case"]})).await;
    let mut calls = case["calls"].as_array().cloned().unwrap_or_default();
    if case["webhook"]["mode"] == "timeout" {
        // It answered long after the API server had given up.
        calls.iter_mut().for_each(|call| call["status"] = Value::Null);
    }
    let hook = Recorded::start(calls).await;
    let plural = format!("{}webhookconfigurations", case["webhook"]["configuration"].as_str().unwrap_or("mutating"));
    let path = format!("{CONFIGURATIONS}/{plural}");
    let status = stage::send(&server, http::Method::POST, &path, &configuration(&case, &hook)).await;
    let mut problems = Vec::new();
    if status != 201 {
        problems.push(format!("the webhook is not registered: status {status}"));
    }
    for exchange in &exchanges {
        let answer = send(&server, exchange, &Names::default()).await;
        problems.extend(differing(exchange, &answer));
    }
    let asked = hook.asked();
    let recorded: Vec<Value> =
        case["calls"].as_array().into_iter().flatten().map(|call| call["request"].clone()).collect();
    if asked.len() != recorded.len() {
        problems.push(format!("the webhook was asked {} times, recorded {}", asked.len(), recorded.len()));
    }
    for (recorded, asked) in recorded.iter().zip(&asked) {
        compare(&question(recorded), &question(asked), "review", &mut |difference| problems.push(difference));
    }
    server.api.stop().await;
    Outcome::of_one(&case, exchanges.len(), &excluded, problems)
}

/// A review without who asks: the recorded administrator has another name.
pub fn question(review: &Value) -> Value {
    let mut review = comparable(review);
    if let Some(review) = review.as_object_mut() {
        review.remove("userInfo");
    }
    // What was done to the object before is not recorded.
    for object in ["object", "oldObject"] {
        if let Some(generation) = review.pointer_mut(&format!("/{object}/metadata/generation")) {
            *generation = json!("N");
        }
    }
    review
}

/// The configuration that the recorded webhook had, as far as its mode tells.
fn configuration(case: &Value, hook: &Recorded) -> Value {
    let (mutating, mode) =
        (case["webhook"]["configuration"] != "validating", case["webhook"]["mode"].as_str().unwrap_or_default());
    let path = case["calls"][0]["path"].as_str().unwrap_or("/none");
    let mut client = json!({"url": format!("https://{}{path}", hook.address), "caBundle": hook.bundle});
    match mode {
        // Nobody listens there.
        "refused" => client["url"] = json!("https://127.0.0.1:1/refused"),
        // Signed by somebody else.
        "tls" => client["caBundle"] = json!(hook.other),
        "noca" => client["caBundle"] = Value::Null,
        _ => {}
    }
    let rules =
        json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    let policy = case["webhook"]["failurePolicy"].as_str().filter(|p| !p.is_empty()).unwrap_or("Fail");
    let mut webhook = json!({"name": format!("{mode}.example.com"), "clientConfig": client, "rules": rules,
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2, "failurePolicy": policy,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "rec"}}});
    match mode {
        "cond" => webhook["matchConditions"] = json!([{"name": "wants", "expression": "has(object.data.want)"}]),
        "condbad" => webhook["matchConditions"] = json!([{"name": "bad", "expression": "object.data.want == 'x'"}]),
        _ => {}
    }
    let kind = if mutating { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "recorded"}, "webhooks": [webhook]})
}

/// A webhook that answers what was recorded, in turn, with the uid it is asked with.
pub struct Recorded {
    pub address: SocketAddr,
    pub bundle: String,
    /// A certificate that signed nothing here.
    other: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Recorded {
    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("unpoisoned").clone()
    }

    pub async fn start(calls: Vec<Value>) -> Self {
        let certificate = || rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        let (made, other) = (certificate(), certificate());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a TLS configuration");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, calls) = (asked.clone(), Arc::new(calls));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, kept, calls) = (acceptor.clone(), kept.clone(), calls.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (kept, calls) = (kept.clone(), calls.clone());
                        async move {
                            let body = request.into_body().collect().await?.to_bytes();
                            let review: Value = serde_json::from_slice(&body).expect("a review");
                            let turn = {
                                let mut kept = kept.lock().expect("unpoisoned");
                                kept.push(review["request"].clone());
                                kept.len() - 1
                            };
                            Ok::<_, hyper::Error>(answer(calls.get(turn), &review["request"]).await)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let encode = |certificate: &rcgen::CertifiedKey<rcgen::KeyPair>| STANDARD.encode(certificate.cert.pem());
        Self { address, bundle: encode(&made), other: encode(&other), asked }
    }
}

async fn answer(call: Option<&Value>, asked: &Value) -> http::Response<Full<Bytes>> {
    let Some(call) = call else { return http::Response::new(Full::default()) };
    let Some(status) = call["status"].as_u64().and_then(|status| u16::try_from(status).ok()) else {
        // It never answered.
        return std::future::pending().await;
    };
    let recorded_uid = call["request"]["uid"].as_str().unwrap_or_default();
    let text = match (&call["body"], call["text"].as_str()) {
        (Value::Null, text) => text.unwrap_or_default().to_owned(),
        (body, _) => body.to_string(),
    };
    let text = text.replace(recorded_uid, asked["uid"].as_str().unwrap_or_default());
    let mut response = http::Response::builder().status(status);
    for header in ["Content-Type", "Location"] {
        if let Some(value) = call["headers"][header].as_str() {
            response = response.header(header, value);
        }
    }
    response.body(Full::new(Bytes::from(text))).expect("a response")
}
