//! Admission webhooks, called over real connections.

mod api_support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fsm_local::api::Dialer;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// A webhook: keeps what it is asked and answers by path.
struct Webhook {
    address: SocketAddr,
    /// The certificate that signs for it, as a `caBundle`.
    bundle: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Webhook {
    async fn start() -> Self {
        let names = vec!["127.0.0.1".to_owned(), "hook.shop.svc".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let bundle = STANDARD.encode(made.cert.pem());
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
        let kept = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, kept) = (acceptor.clone(), kept.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let kept = kept.clone();
                        async move {
                            let path = request.uri().path().to_owned();
                            let body = request.into_body().collect().await?.to_bytes();
                            let review: Value = serde_json::from_slice(&body).expect("a review");
                            let answer = answer(&path, &review["request"]);
                            kept.lock().expect("unpoisoned").push(review["request"].clone());
                            Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(answer.to_string()))))
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, bundle, asked }
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("unpoisoned").clone()
    }

    fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.bundle})
    }
}

fn answer(path: &str, request: &Value) -> Value {
    let mut response = json!({"uid": request["uid"], "allowed": true});
    match path {
        "/mutate" => {
            let patch = json!([{"op": "add", "path": "/data/seen", "value": "yes"}]);
            response["patch"] = json!(STANDARD.encode(patch.to_string()));
            response["patchType"] = json!("JSONPatch");
            response["warnings"] = json!(["changed by a webhook"]);
        }
        "/unfit" => {
            let patch = json!([{"op": "replace", "path": "/spec/none/here", "value": 1}]);
            response["patch"] = json!(STANDARD.encode(patch.to_string()));
            response["patchType"] = json!("JSONPatch");
        }
        "/deny" => {
            response["allowed"] = json!(request["object"]["data"]["bad"].is_null());
            response["status"] = json!({"code": 403, "message": "bad is not wanted"});
        }
        "/broken" => return json!({"what": "is this"}),
        _ => {}
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn rules(resource: &str) -> Value {
    json!([{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]}])
}

fn hook(client: Value, more: Value) -> Value {
    let mut hook = json!({"name": "a.example.com", "clientConfig": client, "rules": rules("configmaps"), "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 5, "namespaceSelector": {"matchLabels": {"watched": "yes"}}});
    for (key, value) in more.as_object().expect("an object") {
        hook[key] = value.clone();
    }
    hook
}

async fn mutating(server: &api_support::TestServer, name: &str, hook: Value) {
    let api: Api<MutatingWebhookConfiguration> = Api::all(server.client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": name}, "webhooks": [hook]})).expect("well-formed");
    api.create(&PostParams::default(), &object).await.expect("registered");
}

async fn shop(server: &api_support::TestServer) -> Api<ConfigMap> {
    let namespaces: Api<Namespace> = Api::all(server.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "shop", "labels": {"watched": "yes"}}}))
        .expect("well-formed");
    namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace");
    Api::namespaced(server.client.clone(), "shop")
}

fn config_map(name: &str, data: Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).expect("well-formed")
}

fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_mutating_webhook_changes_what_is_stored_where_its_selectors_match() {
    let server = api_support::start().await;
    let webhook = Webhook::start().await;
    let maps = shop(&server).await;
    mutating(&server, "m", hook(webhook.client("/mutate"), json!({}))).await;
    let made = maps.create(&PostParams::default(), &config_map("a", json!({"x": "1"}))).await.unwrap();
    assert_eq!(made.data.unwrap()["seen"], "yes");
    let elsewhere: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let other = elsewhere.create(&PostParams::default(), &config_map("a", json!({"x": "1"}))).await.unwrap();
    assert!(!other.data.unwrap().contains_key("seen"), "the namespace isn't selected");

    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("b", json!({"x": "1"}))).await.unwrap();
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"x": "2"}}))).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let asked = webhook.asked();
    let operations: Vec<&str> = asked.iter().filter_map(|r| r["operation"].as_str()).collect();
    assert_eq!(operations, ["CREATE", "CREATE", "UPDATE", "DELETE"]);
    assert_eq!(
        (&asked[0]["namespace"], &asked[0]["name"], &asked[0]["oldObject"]),
        (&json!("shop"), &json!("a"), &Value::Null)
    );
    assert_eq!(asked[0]["userInfo"]["username"], "kubernetes-admin");
    assert_eq!((&asked[1]["dryRun"], &asked[2]["options"]["kind"]), (&json!(true), &json!("UpdateOptions")));
    assert_eq!((&asked[2]["object"]["data"]["x"], &asked[2]["oldObject"]["data"]["x"]), (&json!("2"), &json!("1")));
    assert_eq!((&asked[3]["object"], &asked[3]["oldObject"]["data"]["x"]), (&Value::Null, &json!("2")));
    server.api.stop().await;
}

#[tokio::test]
async fn a_validating_webhook_refuses_with_its_own_words() {
    let server = api_support::start().await;
    let webhook = Webhook::start().await;
    let maps = shop(&server).await;
    let api: Api<ValidatingWebhookConfiguration> = Api::all(server.client.clone());
    let object = json!({"metadata": {"name": "v"}, "webhooks": [hook(webhook.client("/deny"), json!({}))]});
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    maps.create(&PostParams::default(), &config_map("good", json!({"x": "1"}))).await.unwrap();
    let refused = refusal(maps.create(&PostParams::default(), &config_map("bad", json!({"bad": "1"}))).await);
    assert_eq!(refused, (403, "admission webhook \"a.example.com\" denied the request: bad is not wanted".into()));
    assert!(maps.get_opt("bad").await.unwrap().is_none());
    server.api.stop().await;
}

#[tokio::test]
async fn a_webhook_that_fails_is_ignored_or_not_as_it_says() {
    let server = api_support::start().await;
    let webhook = Webhook::start().await;
    let maps = shop(&server).await;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(server.client.clone());
    let untrusted = json!({"url": webhook.client("/mutate")["url"]});
    let nobody = json!({"url": "https://127.0.0.1:1/x", "caBundle": webhook.bundle});
    for (i, client) in [webhook.client("/broken"), untrusted, nobody].into_iter().enumerate() {
        mutating(&server, "m", hook(client.clone(), json!({"failurePolicy": "Fail"}))).await;
        let (code, message) =
            refusal(maps.create(&PostParams::default(), &config_map(&format!("f{i}"), json!({}))).await);
        assert_eq!(code, 500, "{message}");
        assert!(
            message.starts_with("Internal error occurred: failed calling webhook \"a.example.com\": "),
            "{message}"
        );
        configurations.delete("m", &DeleteParams::default()).await.unwrap();
        mutating(&server, "m", hook(client, json!({"failurePolicy": "Ignore"}))).await;
        maps.create(&PostParams::default(), &config_map(&format!("i{i}"), json!({}))).await.unwrap();
        configurations.delete("m", &DeleteParams::default()).await.unwrap();
    }
    // A patch that doesn't fit is an error even then.
    mutating(&server, "m", hook(webhook.client("/unfit"), json!({"failurePolicy": "Ignore"}))).await;
    assert_eq!(refusal(maps.create(&PostParams::default(), &config_map("u", json!({}))).await).0, 500);
    server.api.stop().await;
}

/// Leads every address to one webhook, and keeps the address.
struct Detour {
    to: SocketAddr,
    asked: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Dialer for Detour {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        self.asked.lock().expect("unpoisoned").push(address);
        Box::pin(TcpStream::connect(self.to))
    }
}

#[tokio::test]
async fn a_webhook_behind_a_service_is_reached_at_a_ready_endpoint() {
    let webhook = Webhook::start().await;
    let dialed = Arc::new(Mutex::new(Vec::new()));
    let dialer = Arc::new(Detour { to: webhook.address, asked: dialed.clone() });
    let server = api_support::start_with(tempfile::tempdir().unwrap(), dialer).await;
    let maps = shop(&server).await;
    let client =
        json!({"service": {"namespace": "shop", "name": "hook", "path": "/mutate"}, "caBundle": webhook.bundle});
    mutating(&server, "m", hook(client, json!({}))).await;
    let (_, message) = refusal(maps.create(&PostParams::default(), &config_map("early", json!({}))).await);
    assert!(message.contains("service \"hook\" not found"), "{message}");

    let services: Api<Service> = Api::namespaced(server.client.clone(), "shop");
    let service =
        json!({"metadata": {"name": "hook"}, "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 9443}]}});
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let (_, message) = refusal(maps.create(&PostParams::default(), &config_map("early", json!({}))).await);
    assert!(message.contains("no endpoints available for service \"hook\""), "{message}");

    let slices: Api<EndpointSlice> = Api::namespaced(server.client.clone(), "shop");
    let slice = json!({"metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "ports": [{"name": "https", "port": 9443}], "endpoints": [
            {"addresses": ["10.244.0.4"], "conditions": {"ready": false}}, {"addresses": ["10.244.0.5"], "conditions": {"ready": true}}]});
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    let made = maps.create(&PostParams::default(), &config_map("a", json!({"x": "1"}))).await.unwrap();
    assert_eq!(made.data.unwrap()["seen"], "yes");
    assert_eq!(*dialed.lock().unwrap(), ["10.244.0.5:9443".parse::<SocketAddr>().unwrap()]);
    server.api.stop().await;
}
