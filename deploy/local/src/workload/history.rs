//! ControllerRevisions: the versions of a StatefulSet's or DaemonSet's template, which `kubectl rollout undo` goes back to.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::ReconcileError;
use super::owned::{controlled_by, is_controlled_by};
use super::revision::template_hash;

/// The label that ties a pod to its version.
pub(super) const REVISION: &str = "controller-revision-hash";

/// A template with its place in the history.
pub(super) struct Version {
    /// What pods of it carry in [`REVISION`].
    pub label: String,
    /// The versions before it, oldest first.
    pub before: Vec<(String, ControllerRevision)>,
}

/// Makes the revision of the current template if there is none, and moves it to the end of the history if an earlier template
/// is back. `label` turns the template's hash into what pods carry.
pub(super) async fn record<K: Resource<DynamicType = ()>>(
    client: &Client,
    owner: &K,
    template: &PodTemplateSpec,
    label: impl Fn(&str) -> String,
) -> Result<Version, ReconcileError> {
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &owner.namespace().unwrap_or_default());
    let mut known = api.list(&ListParams::default()).await?.items;
    known.retain(|revision| is_controlled_by(revision, owner));
    known.sort_by_key(|revision| revision.revision);
    let hash = template_hash(template);
    let (wanted, name) = (label(&hash), format!("{}-{hash}", owner.name_any()));
    let latest = known.last().map_or(0, number);
    match known.iter().position(|revision| revision.name_any() == name) {
        Some(at) if number(&known[at]) == latest => {
            known.remove(at);
        }
        Some(at) => {
            let patch = Patch::Merge(json!({"revision": latest + 1}));
            api.patch(&name, &PatchParams::default(), &patch).await?;
            known.remove(at);
        }
        None => {
            let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
            labels.insert(REVISION.to_owned(), wanted.clone());
            let metadata = ObjectMeta {
                name: Some(name),
                namespace: owner.namespace(),
                labels: Some(labels),
                owner_references: Some(vec![controlled_by(owner)]),
                ..ObjectMeta::default()
            };
            // A patch that brings the template back.
            let mut data = json!({"spec": {"template": template}});
            data["spec"]["template"]["$patch"] = json!("replace");
            let revision = ControllerRevision { metadata, data: RawExtension(data), revision: Some(latest + 1) };
            match api.create(&PostParams::default(), &revision).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let of = |revision: ControllerRevision| (revision.labels().get(REVISION).cloned().unwrap_or_default(), revision);
    Ok(Version { label: wanted, before: known.into_iter().map(of).collect() })
}

fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or(0)
}

impl Version {
    /// Removes the oldest versions that no pod has, until `limit` are left.
    pub async fn forget_old(
        &self,
        client: &Client,
        limit: Option<i32>,
        in_use: impl Fn(&str) -> bool,
    ) -> Result<(), ReconcileError> {
        let unused: Vec<_> = self.before.iter().filter(|(label, _)| !in_use(label)).collect();
        let keep = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        for (_, revision) in unused.iter().take(unused.len().saturating_sub(keep)) {
            let namespace = revision.namespace().unwrap_or_default();
            let api: Api<ControllerRevision> = Api::namespaced(client.clone(), &namespace);
            match api.delete(&revision.name_any(), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
