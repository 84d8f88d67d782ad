//! What the server serves: resources by group, version and plural name, built-in and custom.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

/// Where the objects of a resource are kept: `group/plural`. Versions of one resource share it, and so do `v1` and
/// `events.k8s.io/v1` Events.
pub type Storage = Arc<str>;

/// Reads JSON as a built-in type and writes it again, so that unknown fields fall away and wrong types are found.
pub type Typed = fn(Value) -> Result<Value, serde_json::Error>;

/// One version of one resource.
#[derive(Debug, Clone)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub list_kind: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// Whether there is a `scale` subresource.
    pub scale: Option<ScalePaths>,
    /// Further subresources.
    pub extras: &'static [Extra],
    pub storage: Storage,
    pub shape: Shape,
}

/// A subresource with a kind of its own.
#[derive(Debug, Clone, Copy)]
pub struct Extra {
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// Where the scale subresource finds its numbers, as dotted paths.
#[derive(Debug, Clone)]
pub struct ScalePaths {
    pub replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

/// How objects of a resource are read.
#[derive(Debug, Clone)]
pub enum Shape {
    BuiltIn(Typed),
    Custom(Arc<CustomVersion>),
    /// Nothing is stored: a POST is a question and its answer (TokenReview, SelfSubjectAccessReview …).
    Review,
}

/// One version of a custom resource, as its CustomResourceDefinition says.
#[derive(Debug, Clone)]
pub struct CustomVersion {
    /// `schema.openAPIV3Schema`.
    pub schema: Value,
    /// Whether objects are stored in this version.
    pub stored: bool,
    /// `additionalPrinterColumns`.
    pub columns: Vec<Value>,
    /// Dotted paths that a field selector may name.
    pub selectable: Vec<String>,
    /// The uid of the definition.
    pub definition: String,
}

impl Resource {
    /// `group/version`, or the bare version for the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The plural name with its group, as messages show it: `deployments.apps`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub fn custom(&self) -> Option<&CustomVersion> {
        match &self.shape {
            Shape::Custom(version) => Some(version),
            Shape::BuiltIn(_) | Shape::Review => None,
        }
    }

    /// Whether this is the built-in resource of that group and plural name.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// The verbs of the resource itself, as discovery lists them.
    pub fn verbs(&self) -> &'static [&'static str] {
        if matches!(self.shape, Shape::Review) {
            &["create"]
        } else if self.custom().is_some() {
            &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
        } else if self.is("", "namespaces") {
            &["create", "delete", "get", "list", "patch", "update", "watch"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }

    /// Whether a field selector may name the field.
    pub fn selectable(&self, field: &str) -> bool {
        if matches!(field, "metadata.name" | "metadata.namespace") {
            return true;
        }
        if let Some(custom) = self.custom() {
            return custom.selectable.iter().any(|path| path == field);
        }
        let more: &[&str] = match (self.group.as_str(), self.plural.as_str()) {
            ("", "pods") => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            ("", "events") => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            ("events.k8s.io", "events") => {
                &["regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid", "reason", "type"]
            }
            ("", "namespaces") => &["status.phase"],
            ("", "nodes") => &["spec.unschedulable"],
            ("", "secrets") => &["type"],
            ("", "services") => &["spec.clusterIP", "spec.type"],
            ("apps", "replicasets") => &["status.replicas"],
            ("batch", "jobs") => &["status.successful"],
            _ => &[],
        };
        more.contains(&field)
    }
}

/// Everything served at one moment.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    resources: BTreeMap<(String, String, String), Arc<Resource>>,
    /// Groups in the order discovery lists them.
    pub groups: Vec<String>,
}

impl Registry {
    pub fn add(&mut self, resource: Resource) {
        if !self.groups.contains(&resource.group) {
            self.groups.push(resource.group.clone());
        }
        let key = (resource.group.clone(), resource.version.clone(), resource.plural.clone());
        self.resources.insert(key, Arc::new(resource));
    }

    /// Removes every version of a resource.
    pub fn remove(&mut self, group: &str, plural: &str) {
        self.resources.retain(|(g, _, p), _| g != group || p != plural);
        let resources = &self.resources;
        self.groups.retain(|group| resources.keys().any(|(g, _, _)| g == group));
    }

    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// The resource an `apiVersion` and `kind` name.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.iter().find(|r| r.kind == kind && r.api_version() == api_version)
    }

    /// The resource that speaks for a storage: of a custom resource the version objects are stored in.
    pub fn by_storage(&self, storage: &str) -> Option<&Arc<Resource>> {
        let speaks = |r: &Resource| r.custom().map_or(*storage == *format!("{}/{}", r.group, r.plural), |c| c.stored);
        self.iter().find(|r| *r.storage == *storage && speaks(r))
    }

    /// One resource for each storage: what garbage collection and namespace deletion visit.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.iter().filter(|r| match &r.shape {
            Shape::Review => false,
            Shape::Custom(version) => version.stored,
            Shape::BuiltIn(_) => *r.storage == *format!("{}/{}", r.group, r.plural),
        })
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The versions of a group, the preferred one first.
    pub fn versions(&self, group: &str) -> Vec<String> {
        let mut versions: Vec<String> =
            self.resources.keys().filter(|(g, _, _)| g == group).map(|(_, version, _)| version.clone()).collect();
        versions.dedup();
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        versions.dedup();
        versions
    }

    pub fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.iter().filter(move |r| r.group == group && r.version == version)
    }
}

/// Kubernetes' order of versions: stable before beta before alpha, then the higher number.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let major = digits(rest);
    let tail = &rest[major.len()..];
    let (stability, minor) = match tail {
        "" => (3, ""),
        _ => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => (0, ""),
        },
    };
    (stability, major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// An empty object of a resource carrying only a version: what a bookmark shows.
pub fn empty_object(resource: &Resource, version: u64) -> Value {
    json!({
        "kind": resource.kind,
        "apiVersion": resource.api_version(),
        "metadata": {"resourceVersion": version.to_string()},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_are_preferred() {
        let mut versions = ["v1alpha4", "v2", "v1beta1", "v1", "v1alpha2", "odd"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta1", "v1alpha4", "v1alpha2", "odd"]);
    }
}
