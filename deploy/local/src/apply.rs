//! Applying manifests, as `kubectl apply --server-side` does.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, oneshot};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{source_name}: document {number} is not YAML: {source}")]
    Yaml { source_name: String, number: usize, source: serde_yaml::Error },
    #[error("{source_name}: document {number} has no {field}")]
    Field { source_name: String, number: usize, field: &'static str },
    #[error("{source_name}: {kind} {name}: {source}")]
    Refused { source_name: String, kind: String, name: String, source: kube::Error },
    #[error("{source_name}: {name} was accepted but is not served: {source}")]
    NotServed { source_name: String, name: String, source: kube::runtime::wait::Error },
}

/// Applies every document of `text` in order; `source_name` stands for it in errors. Returns what was applied, as `kind/name`.
/// Unknown fields are refused. Documents before a refused one stay applied.
pub async fn apply(client: &Client, source_name: &str, text: &str) -> Result<Vec<String>, ApplyError> {
    let mut done = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        let source_name = source_name.to_owned();
        let value = match Value::deserialize(document) {
            Ok(Value::Null) => continue,
            Ok(value) => value,
            Err(source) => return Err(ApplyError::Yaml { source_name, number, source }),
        };
        let field = |field| ApplyError::Field { source_name: source_name.clone(), number, field };
        let object: DynamicObject = serde_json::from_value(value).map_err(|_| field("metadata"))?;
        let types = object.types.clone().ok_or_else(|| field("apiVersion or kind"))?;
        let name = object.metadata.name.clone().ok_or_else(|| field("metadata.name"))?;
        let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
        let gvk = GroupVersionKind::gvk(group, version, &types.kind);
        let refused = |source| ApplyError::Refused {
            source_name: source_name.clone(),
            kind: types.kind.clone(),
            name: name.clone(),
            source,
        };
        let (resource, capabilities) = oneshot::pinned_kind(client, &gvk).await.map_err(refused)?;
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), &resource),
            Scope::Namespaced => {
                let namespace = object.namespace().unwrap_or_else(|| "default".to_owned());
                Api::namespaced_with(client.clone(), &namespace, &resource)
            }
        };
        let parameters = PatchParams::apply("fsm").force().validation_strict();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await.map_err(refused)?;
        if types.kind == "CustomResourceDefinition" {
            let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
            let served = await_condition(definitions, &name, conditions::is_crd_established()).await;
            served.map_err(|source| ApplyError::NotServed { source_name, name: name.clone(), source })?;
        }
        done.push(format!("{}/{name}", types.kind.to_lowercase()));
    }
    Ok(done)
}
