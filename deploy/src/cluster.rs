//! Applying manifests to a cluster, whichever kinds are in them.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::discovery::{ApiCapabilities, Scope, oneshot};
use kube::{Api, Client};
use serde::Deserialize;

/// The field manager of everything that this CLI applies.
pub const FIELD_MANAGER: &str = "fsm";

/// The objects of a manifest of several YAML documents, in their order. `source` names it in errors.
pub fn parse_manifest(source: &str, text: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let place = || format!("{source}: document {}", index + 1);
        let value = serde_json::Value::deserialize(document).with_context(|| format!("{} is not YAML", place()))?;
        if value.is_null() {
            continue;
        }
        let object: DynamicObject = serde_json::from_value(value).with_context(|| {
            format!("{} is not a Kubernetes object: apiVersion, kind and metadata are needed", place())
        })?;
        if object.types.is_none() || object.metadata.name.is_none() {
            bail!("{}: apiVersion, kind and metadata.name are needed", place());
        }
        objects.push(object);
    }
    Ok(objects)
}

/// Applies objects (server-side), looking up each kind once.
pub struct Applier {
    client: Client,
    known: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>,
}

impl Applier {
    pub fn new(client: Client) -> Self {
        Self { client, known: HashMap::new() }
    }

    /// Applies `objects` in order; the first refusal ends it, naming the object.
    pub async fn apply(&mut self, objects: &[DynamicObject]) -> anyhow::Result<()> {
        for object in objects {
            let api = self.api_of(object).await?;
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let params = PatchParams::apply(FIELD_MANAGER).force();
            api.patch(name, &params, &Patch::Apply(object)).await.with_context(|| describe(object))?;
        }
        Ok(())
    }

    /// Deletes `objects` in reverse order; those that are gone already are no error.
    pub async fn delete(&mut self, objects: &[DynamicObject]) -> anyhow::Result<()> {
        for object in objects.iter().rev() {
            let api = match self.api_of(object).await {
                Ok(api) => api,
                // Its kind has left the cluster, so it has too.
                Err(_) => continue,
            };
            let name = object.metadata.name.as_deref().unwrap_or_default();
            match api.delete(name, &Default::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error).with_context(|| describe(object)),
            }
        }
        Ok(())
    }

    async fn api_of(&mut self, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
        let types = object.types.as_ref().context("an object without kind")?;
        let gvk = GroupVersionKind::try_from(types).with_context(|| describe(object))?;
        if !self.known.contains_key(&gvk) {
            let found = find_kind(&self.client, &gvk).await.with_context(|| describe(object))?;
            self.known.insert(gvk.clone(), found);
        }
        let (resource, capabilities) = &self.known[&gvk];
        Ok(match (&capabilities.scope, object.metadata.namespace.as_deref()) {
            (Scope::Cluster, _) => Api::all_with(self.client.clone(), resource),
            (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(self.client.clone(), namespace, resource),
            (Scope::Namespaced, None) => Api::default_namespaced_with(self.client.clone(), resource),
        })
    }
}

/// Looks a kind up; a kind whose CustomResourceDefinition was made a moment ago may need a moment.
async fn find_kind(client: &Client, gvk: &GroupVersionKind) -> anyhow::Result<(ApiResource, ApiCapabilities)> {
    const ATTEMPTS: u32 = 20;
    let mut attempt = 1;
    loop {
        match oneshot::pinned_kind(client, gvk).await {
            Ok(found) => return Ok(found),
            Err(error) if attempt == ATTEMPTS => {
                return Err(error)
                    .context("the cluster does not serve this kind; is its CustomResourceDefinition installed?");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        attempt += 1;
    }
}

fn describe(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| &types.kind);
    let name = object.metadata.name.as_deref().unwrap_or("without name");
    match &object.metadata.namespace {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_manifest;

    #[test]
    fn a_manifest_is_read_in_order_and_empty_documents_are_skipped() {
        let text = "---\n# nothing\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: b, namespace: a}\n";
        let names: Vec<_> =
            parse_manifest("x.yaml", text).unwrap().into_iter().map(|object| object.metadata.name.unwrap()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn an_unusable_document_is_named() {
        let error = parse_manifest("x.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {}\n").unwrap_err();
        assert_eq!(format!("{error:#}"), "x.yaml: document 1: apiVersion, kind and metadata.name are needed");
        let error = parse_manifest("x.yaml", "a: [").unwrap_err();
        assert!(format!("{error:#}").starts_with("x.yaml: document 1 is not YAML"), "{error:#}");
    }
}
