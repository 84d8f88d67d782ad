//! Telling the API server about the webhooks.

use fsm_api::{KindInfo, kinds, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{INJECT_PATH, VALIDATE_PATH};
use crate::kubernetes::ApiError;

/// Who owns the fields that are written.
const FIELD_MANAGER: &str = "fsm-controller";
/// How long the API server waits for an answer, in seconds.
const TIMEOUT_SECONDS: i32 = 20;

/// Why the API server doesn't know a webhook.
#[derive(Debug, thiserror::Error)]
#[error(
    "{kind} {name} can't be written: {cause}; check that the controller's ServiceAccount may get, create and update it"
)]
pub struct RegisterError {
    kind: &'static str,
    name: String,
    cause: ApiError,
}

/// Applies both configurations. The API server verifies the webhooks against `ca_pem`.
pub async fn register(client: Client, mesh: &str, namespace: &str, ca_pem: &str) -> Result<(), RegisterError> {
    let inject = mutating(mesh, namespace, ca_pem);
    apply(Api::<MutatingWebhookConfiguration>::all(client.clone()), "MutatingWebhookConfiguration", &inject).await?;
    let validate = validating(mesh, namespace, ca_pem);
    apply(Api::<ValidatingWebhookConfiguration>::all(client), "ValidatingWebhookConfiguration", &validate).await
}

/// Creates the object, or replaces what is there (another controller may do the same at the same time).
async fn apply<K>(api: Api<K>, kind: &'static str, object: &K) -> Result<(), RegisterError>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let name = object.meta().name.clone().unwrap_or_default();
    loop {
        let result = match api.get_opt(&name).await {
            Ok(None) => api.create(&params(), object).await,
            Ok(Some(present)) => {
                let mut object = object.clone();
                object.meta_mut().resource_version.clone_from(&present.meta().resource_version);
                api.replace(&name, &params(), &object).await
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(RegisterError { kind, name, cause: error.into() }),
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

pub(super) fn mutating(mesh: &str, namespace: &str, ca_pem: &str) -> MutatingWebhookConfiguration {
    MutatingWebhookConfiguration {
        metadata: metadata(format!("fsm-webhook-{mesh}"), mesh),
        webhooks: Some(vec![MutatingWebhook {
            name: "fsm-inject.k8s.io".to_owned(),
            admission_review_versions: vec!["v1".to_owned()],
            client_config: client_config("fsm-injector", namespace, 9090, INJECT_PATH, ca_pem),
            failure_policy: Some("Fail".to_owned()),
            match_policy: Some("Exact".to_owned()),
            namespace_selector: Some(members_of(mesh, namespace)),
            side_effects: "NoneOnDryRun".to_owned(),
            timeout_seconds: Some(TIMEOUT_SECONDS),
            rules: Some(vec![rule(&kinds::POD, &["CREATE"])]),
            ..MutatingWebhook::default()
        }]),
    }
}

pub(super) fn validating(mesh: &str, namespace: &str, ca_pem: &str) -> ValidatingWebhookConfiguration {
    let webhook = |name: &str, selector, rules| ValidatingWebhook {
        name: name.to_owned(),
        admission_review_versions: vec!["v1".to_owned()],
        client_config: client_config("fsm-controller", namespace, 9093, VALIDATE_PATH, ca_pem),
        failure_policy: Some("Fail".to_owned()),
        match_policy: Some("Exact".to_owned()),
        namespace_selector: Some(selector),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(TIMEOUT_SECONDS),
        rules: Some(rules),
        ..ValidatingWebhook::default()
    };
    let policies = [&kinds::TRAFFIC_TARGET, &kinds::HTTP_ROUTE_GROUP, &kinds::TCP_ROUTE, &kinds::TRAFFIC_SPLIT];
    let mut rules: Vec<_> = policies.into_iter().map(|kind| rule(kind, &["CREATE", "UPDATE"])).collect();
    for rule in &mut rules {
        // Splits are served in an older version too.
        if rule.resources.as_deref() == Some(&[kinds::TRAFFIC_SPLIT.plural.to_owned()]) {
            rule.api_versions.get_or_insert_default().push("v1alpha2".to_owned());
        }
    }
    // The mesh's settings live in the mesh namespace, which is not a member of the mesh.
    let own = requirement("kubernetes.io/metadata.name", "In", &[namespace]);
    let own = LabelSelector { match_expressions: Some(vec![own]), ..LabelSelector::default() };
    ValidatingWebhookConfiguration {
        metadata: metadata(format!("fsm-validator-mesh-{mesh}"), mesh),
        webhooks: Some(vec![
            webhook("fsm-validator.k8s.io", members_of(mesh, namespace), rules),
            webhook("fsm-mesh-config.k8s.io", own, vec![rule(&kinds::MESH_CONFIG, &["CREATE", "UPDATE"])]),
        ]),
    }
}

fn metadata(name: String, mesh: &str) -> ObjectMeta {
    let labels = [
        ("app.kubernetes.io/name", "flomesh.io"),
        ("app.kubernetes.io/instance", mesh),
        ("flomesh.io/reconcile", "true"),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ObjectMeta { name: Some(name), labels: Some(labels.into()), ..ObjectMeta::default() }
}

fn client_config(service: &str, namespace: &str, port: i32, path: &str, ca_pem: &str) -> WebhookClientConfig {
    WebhookClientConfig {
        ca_bundle: Some(ByteString(ca_pem.as_bytes().to_vec())),
        service: Some(ServiceReference {
            name: service.to_owned(),
            namespace: namespace.to_owned(),
            path: Some(path.to_owned()),
            port: Some(port),
        }),
        url: None,
    }
}

fn rule(kind: &KindInfo, operations: &[&str]) -> RuleWithOperations {
    RuleWithOperations {
        api_groups: Some(vec![kind.group.to_owned()]),
        api_versions: Some(vec![kind.version.to_owned()]),
        operations: Some(operations.iter().map(|operation| (*operation).to_owned()).collect()),
        resources: Some(vec![kind.plural.to_owned()]),
        scope: Some("Namespaced".to_owned()),
    }
}

/// Namespaces of the mesh, but not the mesh's own.
fn members_of(mesh: &str, own: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some([(names::MONITORED_BY.to_owned(), mesh.to_owned())].into()),
        match_expressions: Some(vec![
            requirement(names::IGNORE, "DoesNotExist", &[]),
            requirement("name", "NotIn", &[own]),
            requirement("kubernetes.io/metadata.name", "NotIn", &[own]),
            requirement("control-plane", "DoesNotExist", &[]),
        ]),
    }
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: (!values.is_empty()).then(|| values.iter().map(|value| (*value).to_owned()).collect()),
    }
}
