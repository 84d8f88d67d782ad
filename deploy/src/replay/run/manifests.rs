//! `--with FILE`: objects as they might have been applied.

use std::path::{Path, PathBuf};

use anyhow::Context;
use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;
use fsm_actors::fact::Fact;
use fsm_api::KindInfo;
use serde_json::{Value, json};

use crate::cluster::parse_manifest;
use crate::replay::misuse::Misuse;

/// An object of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) file: PathBuf,
    pub(super) info: &'static KindInfo,
    pub(super) name: ObjectName,
    object: Value,
}

/// The objects of all files, in their order.
pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        for object in parse_manifest(&file.display().to_string(), &text)? {
            manifests.push(Manifest::new(file, &serde_json::to_value(object)?)?);
        }
    }
    Ok(manifests)
}

impl Manifest {
    fn new(file: &Path, object: &Value) -> anyhow::Result<Self> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("/apiVersion"), text("/kind"));
        let info = KindInfo::find(api_version, kind).ok_or_else(|| {
            let known: Vec<&str> = fsm_api::kinds::WATCHED.iter().map(|info| info.kind).collect();
            let file = file.display();
            Misuse(format!(
                "{file}: {api_version} {kind} is no kind that the mesh looks at; those are {}",
                known.join(", ")
            ))
        })?;
        let mut object = object.clone();
        if info.namespaced && text_of(&object, "/metadata/namespace").is_empty() {
            object["metadata"]["namespace"] = json!("default");
        }
        let name = ObjectName::new(text_of(&object, "/metadata/namespace"), text_of(&object, "/metadata/name"));
        Ok(Self { file: file.to_owned(), info, name, object })
    }

    /// The fact that it was applied: what it says, over what is there already.
    pub(super) fn fact(&self, core: &Core) -> Fact {
        let key = (self.info.gvk().into(), self.name.clone());
        let there = core.catalog().objects().get(&key).and_then(|object| serde_json::from_str(object.json.get()).ok());
        let mut object = there.unwrap_or_else(|| json!({}));
        merge(&mut object, &self.object);
        Fact::applied(self.info.gvk(), &object)
    }

    /// Why it would not be used, if so.
    pub(super) fn problem(&self, core: &Core) -> Option<String> {
        core.catalog().unusable().get(&(self.info.gvk().into(), self.name.clone())).map(|reason| reason.to_string())
    }
}

fn text_of(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// RFC 7396: maps are merged, everything else is replaced, null removes.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Some(into) = target.as_object_mut() {
        for (name, value) in fields {
            match value {
                Value::Null => drop(into.remove(name)),
                value => merge(into.entry(name.clone()).or_insert(Value::Null), value),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_keeps_what_it_does_not_say() {
        let mut there = json!({ "spec": { "clusterIP": "10.0.0.1", "ports": [1, 2] }, "status": 1 });
        merge(&mut there, &json!({ "spec": { "ports": [3] }, "status": null }));
        assert_eq!(there, json!({ "spec": { "clusterIP": "10.0.0.1", "ports": [3] } }));
    }

    #[test]
    fn a_kind_that_the_mesh_does_not_look_at_is_named() {
        let object = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "a" } });
        let error = Manifest::new(Path::new("job.yaml"), &object).unwrap_err().to_string();
        assert!(error.starts_with("job.yaml: batch/v1 Job is no kind that the mesh looks at"), "{error}");
        let split =
            json!({ "apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit", "metadata": { "name": "a" } });
        assert_eq!(Manifest::new(Path::new("split.yaml"), &split).unwrap().name, ObjectName::new("default", "a"));
    }
}
