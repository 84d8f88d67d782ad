use std::sync::Arc;

use base64::Engine;
use fsm_store::{EventLog, Options, Record, Seq, SledLog, Timestamp, TraceContext};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::fact::{ControllerStarted, Fact, PodAdmitted};
use crate::metrics::Metrics;
use crate::publish::Followed;
use crate::{Core, FactSink};

/// The first AdmissionReview of a recording.
fn recorded(case: &str) -> Value {
    let path = format!("{}/tests/recordings/admission/{case}.json", env!("CARGO_MANIFEST_DIR"));
    let recording: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    recording["calls"][0]["request_body"].clone()
}

fn request(review: &Value) -> AdmissionRequest {
    AdmissionRequest::parse(review.to_string().as_bytes()).unwrap()
}

fn validated(review: &Value) -> AdmissionResponse {
    ValidationWebhook::new(Arc::new(Metrics::default())).answer(&request(review))
}

/// What the webhook knows in a mesh with the member namespace `rec`, where injection is on.
fn member(annotations: &Value) -> crate::concern::injection::Injection {
    let namespace = json!({"metadata": {
        "name": "rec", "labels": {"flomesh.io/monitored-by": "fsm"}, "annotations": annotations,
    }});
    let started = ControllerStarted {
        mesh_name: "fsm".to_owned(),
        mesh_namespace: "fsm-system".to_owned(),
        mesh_config: "fsm-mesh-config".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        ..ControllerStarted::default()
    };
    let facts = [Fact::ControllerStarted(started), Fact::applied("v1/Namespace", &namespace)];
    let records: Vec<Record> = (1..)
        .zip(facts)
        .map(|(seq, fact)| Record {
            seq: Seq(seq),
            time: Timestamp(seq),
            entry: fact.to_entry(TraceContext::default()),
        })
        .collect();
    let mut core = Core::new(Followed::Nobody);
    core.apply(&records);
    core.injection().clone()
}

struct Injector {
    webhook: InjectionWebhook,
    log: Arc<SledLog>,
    _state: watch::Sender<crate::concern::injection::Injection>,
    _dir: tempfile::TempDir,
}

impl Injector {
    fn new(annotations: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(SledLog::open(dir.path(), Options::default()).unwrap());
        let (state, injection) = watch::channel(member(annotations));
        Self { webhook: InjectionWebhook::new(injection, FactSink::new(log.clone())), log, _state: state, _dir: dir }
    }

    async fn admitted(&self) -> Vec<PodAdmitted> {
        let mut records = self.log.read(Seq::ZERO);
        let mut admitted = Vec::new();
        while let Some(batch) = records.next().await {
            for record in batch.unwrap().iter() {
                match Fact::parse(&record.entry).unwrap() {
                    Fact::PodAdmitted(fact) => admitted.push(fact),
                    other => panic!("the webhook recorded {other:?}"),
                }
            }
        }
        admitted
    }
}

#[test]
fn questions_of_a_real_api_server_are_understood() {
    let by_replicaset = request(&recorded("pod-create-by-replicaset"));
    assert_eq!((by_replicaset.kind.kind.as_str(), by_replicaset.operation.as_str()), ("Pod", "CREATE"));
    assert!(by_replicaset.object_name().ends_with('-'), "the name is not made up yet");
    assert!(!by_replicaset.dry_run);
    assert!(request(&recorded("pod-create-dry-run")).dry_run);
    for wrong in [json!({}), json!([]), json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview"})] {
        assert!(AdmissionRequest::parse(wrong.to_string().as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn answers_have_the_form_that_the_api_server_wants() {
    let patch = json!([{"op": "add", "path": "/metadata/labels/x", "value": "y"}]);
    let patched =
        AdmissionResponse::Patched { patch: patch.clone(), warnings: vec!["hm".to_owned()] }.into_review("u-1");
    assert_eq!(patched["apiVersion"], "admission.k8s.io/v1");
    let response = &patched["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
    assert_eq!((&response["patchType"], &response["warnings"]), (&json!("JSONPatch"), &json!(["hm"])));
    let bytes = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), patch);
    let denied = AdmissionResponse::Denied { message: "no".to_owned(), warnings: Vec::new() }.into_review("u-2");
    assert_eq!(
        denied["response"],
        json!({"uid": "u-2", "allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": "no"}})
    );
}

#[test]
fn good_policy_passes_and_bad_policy_is_refused_with_the_field() {
    let mut review = recorded("trafficsplit-create");
    assert_eq!(validated(&review), AdmissionResponse::Allowed { warnings: Vec::new() });
    review["request"]["object"]["spec"]["backends"][0]["weight"] = json!(-5);
    let AdmissionResponse::Denied { message, .. } = validated(&review) else { panic!("accepted a negative weight") };
    assert!(message.contains("spec.backends[0].weight: -5"), "{message}");
}

#[test]
fn authors_are_told_what_has_no_effect() {
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "1", "operation": "UPDATE", "namespace": "fsm-system", "name": "fsm-mesh-config",
        "object": {"apiVersion": "config.flomesh.io/v1alpha3", "kind": "MeshConfig",
            "metadata": {"name": "fsm-mesh-config"}, "spec": {"warmup": {"enable": true}}},
    }});
    let AdmissionResponse::Allowed { warnings } = validated(&review) else { panic!("refused") };
    assert!(warnings[0].starts_with("MeshConfig fsm-system/fsm-mesh-config: spec.warmup.enable: "), "{warnings:?}");
}

#[tokio::test]
async fn a_pod_of_the_mesh_gets_its_sidecar_and_that_is_recorded() {
    let injector = Injector::new(&json!({"flomesh.io/sidecar-injection": "enabled"}));
    let question = request(&recorded("pod-create-by-replicaset"));
    let AdmissionResponse::Patched { patch, .. } = injector.webhook.answer(&question).await else {
        panic!("no sidecar")
    };
    let admitted = injector.admitted().await;
    assert_eq!((admitted.len(), admitted[0].outcome.as_str()), (1, "injected"));
    assert_eq!((admitted[0].namespace.as_str(), admitted[0].service_account.as_str()), ("rec", "default"));
    let uuid = admitted[0].uuid.clone().unwrap();
    assert!(patch.to_string().contains(&uuid), "the pod carries the id that was recorded");
}

#[tokio::test]
async fn a_dry_run_is_answered_the_same_and_leaves_no_trace() {
    let injector = Injector::new(&json!({"flomesh.io/sidecar-injection": "enabled"}));
    let answer = injector.webhook.answer(&request(&recorded("pod-create-dry-run"))).await;
    assert!(matches!(answer, AdmissionResponse::Patched { .. }), "{answer:?}");
    assert_eq!(injector.admitted().await, []);
}

#[tokio::test]
async fn a_pod_with_a_wrong_annotation_is_refused_with_the_reason() {
    let injector = Injector::new(&json!({}));
    let mut review = recorded("pod-create-by-kubectl-run");
    review["request"]["object"]["metadata"]["annotations"] = json!({"flomesh.io/sidecar-injection": "perhaps"});
    let answer = injector.webhook.answer(&request(&review)).await;
    let AdmissionResponse::Denied { message, .. } = answer else { panic!("accepted") };
    assert!(message.contains("perhaps"), "{message}");
    let admitted = injector.admitted().await;
    assert_eq!((admitted[0].outcome.as_str(), admitted[0].reason.as_deref()), ("refused", Some(message.as_str())));
}

#[tokio::test]
async fn without_an_annotation_a_pod_passes_as_it_is() {
    let injector = Injector::new(&json!({}));
    let answer = injector.webhook.answer(&request(&recorded("pod-create-by-kubectl-run"))).await;
    assert_eq!(answer, AdmissionResponse::Allowed { warnings: Vec::new() });
    assert_eq!(injector.admitted().await[0].outcome, "skipped");
}

#[tokio::test]
async fn a_pod_is_refused_while_the_controller_has_not_seen_its_namespace_join() {
    let mut injector = Injector::new(&json!({}));
    // No more news will come, so there is nothing to wait for.
    injector._state = watch::channel(member(&json!({}))).0;
    let mut review = recorded("pod-create-by-kubectl-run");
    review["request"]["namespace"] = json!("joined-a-moment-ago");
    let answer = injector.webhook.answer(&request(&review)).await;
    let AdmissionResponse::Denied { message, .. } = answer else { panic!("let through without a proxy") };
    assert!(message.contains("joined-a-moment-ago"), "{message}");
    assert_eq!(injector.admitted().await[0].outcome, "refused");
}

#[tokio::test]
async fn what_is_no_question_is_a_bad_request() {
    let service = WebhookService::new(VALIDATE_PATH, ValidationWebhook::new(Arc::new(Metrics::default())));
    assert_eq!(service.post(b"{").await.status(), 400);
    assert_eq!(service.post(recorded("trafficsplit-create").to_string().as_bytes()).await.status(), 200);
}

#[test]
fn webhooks_are_registered_as_documented() {
    let inject = serde_json::to_value(register::mutating("fsm", "fsm-system", "PEM")).unwrap();
    insta::assert_json_snapshot!("mutating", inject);
    let validate = serde_json::to_value(register::validating("fsm", "fsm-system", "PEM")).unwrap();
    insta::assert_json_snapshot!("validating", validate);
}
