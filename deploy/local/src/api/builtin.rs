//! The table of built-in resources.

use k8s_openapi::api;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::resource::{Extra, Registry, Resource, ScalePaths, Shape, Typed};

fn typed<T: DeserializeOwned + Serialize>(value: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(T::deserialize(value)?)
}

/// A row of the table; names in parts, as discovery shows them.
struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    /// Short names, then categories.
    names: (&'static [&'static str], &'static [&'static str]),
    scope: Scope,
    parts: Parts,
    typed: Typed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Namespaced,
    Cluster,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    /// The object only.
    Whole,
    /// With a `status` subresource.
    Status,
    /// With `status` and `scale`.
    Scaled,
}

const ALL: &[&str] = &["all"];
const EXTENSIONS: &[&str] = &["api-extensions"];
const NONE: &[&str] = &[];

macro_rules! rows {
    ($($group:literal $version:literal $plural:literal $kind:literal $short:expr, $categories:expr, $scope:ident $parts:ident $type:path;)*) => {
        &[$(Row {
            group: $group,
            version: $version,
            plural: $plural,
            kind: $kind,
            names: ($short, $categories),
            scope: Scope::$scope,
            parts: Parts::$parts,
            typed: typed::<$type>,
        }),*]
    };
}

const ROWS: &[Row] = rows! {
    "" "v1" "configmaps" "ConfigMap" &["cm"], NONE, Namespaced Whole api::core::v1::ConfigMap;
    "" "v1" "endpoints" "Endpoints" &["ep"], NONE, Namespaced Whole api::core::v1::Endpoints;
    "" "v1" "events" "Event" &["ev"], NONE, Namespaced Whole api::core::v1::Event;
    "" "v1" "limitranges" "LimitRange" &["limits"], NONE, Namespaced Whole api::core::v1::LimitRange;
    "" "v1" "namespaces" "Namespace" &["ns"], NONE, Cluster Status api::core::v1::Namespace;
    "" "v1" "nodes" "Node" &["no"], NONE, Cluster Status api::core::v1::Node;
    "" "v1" "persistentvolumeclaims" "PersistentVolumeClaim" &["pvc"], NONE, Namespaced Status api::core::v1::PersistentVolumeClaim;
    "" "v1" "persistentvolumes" "PersistentVolume" &["pv"], NONE, Cluster Status api::core::v1::PersistentVolume;
    "" "v1" "pods" "Pod" &["po"], ALL, Namespaced Status api::core::v1::Pod;
    "" "v1" "podtemplates" "PodTemplate" NONE, NONE, Namespaced Whole api::core::v1::PodTemplate;
    "" "v1" "replicationcontrollers" "ReplicationController" &["rc"], ALL, Namespaced Scaled api::core::v1::ReplicationController;
    "" "v1" "resourcequotas" "ResourceQuota" &["quota"], NONE, Namespaced Status api::core::v1::ResourceQuota;
    "" "v1" "secrets" "Secret" NONE, NONE, Namespaced Whole api::core::v1::Secret;
    "" "v1" "serviceaccounts" "ServiceAccount" &["sa"], NONE, Namespaced Whole api::core::v1::ServiceAccount;
    "" "v1" "services" "Service" &["svc"], ALL, Namespaced Status api::core::v1::Service;
    "apps" "v1" "controllerrevisions" "ControllerRevision" NONE, NONE, Namespaced Whole api::apps::v1::ControllerRevision;
    "apps" "v1" "daemonsets" "DaemonSet" &["ds"], ALL, Namespaced Status api::apps::v1::DaemonSet;
    "apps" "v1" "deployments" "Deployment" &["deploy"], ALL, Namespaced Scaled api::apps::v1::Deployment;
    "apps" "v1" "replicasets" "ReplicaSet" &["rs"], ALL, Namespaced Scaled api::apps::v1::ReplicaSet;
    "apps" "v1" "statefulsets" "StatefulSet" &["sts"], ALL, Namespaced Scaled api::apps::v1::StatefulSet;
    "events.k8s.io" "v1" "events" "Event" &["ev"], NONE, Namespaced Whole api::events::v1::Event;
    "autoscaling" "v2" "horizontalpodautoscalers" "HorizontalPodAutoscaler" &["hpa"], ALL, Namespaced Status api::autoscaling::v2::HorizontalPodAutoscaler;
    "batch" "v1" "cronjobs" "CronJob" &["cj"], ALL, Namespaced Status api::batch::v1::CronJob;
    "batch" "v1" "jobs" "Job" NONE, ALL, Namespaced Status api::batch::v1::Job;
    "networking.k8s.io" "v1" "ingressclasses" "IngressClass" NONE, NONE, Cluster Whole api::networking::v1::IngressClass;
    "networking.k8s.io" "v1" "ingresses" "Ingress" &["ing"], NONE, Namespaced Status api::networking::v1::Ingress;
    "networking.k8s.io" "v1" "networkpolicies" "NetworkPolicy" &["netpol"], NONE, Namespaced Whole api::networking::v1::NetworkPolicy;
    "policy" "v1" "poddisruptionbudgets" "PodDisruptionBudget" &["pdb"], NONE, Namespaced Status api::policy::v1::PodDisruptionBudget;
    "rbac.authorization.k8s.io" "v1" "clusterrolebindings" "ClusterRoleBinding" NONE, NONE, Cluster Whole api::rbac::v1::ClusterRoleBinding;
    "rbac.authorization.k8s.io" "v1" "clusterroles" "ClusterRole" NONE, NONE, Cluster Whole api::rbac::v1::ClusterRole;
    "rbac.authorization.k8s.io" "v1" "rolebindings" "RoleBinding" NONE, NONE, Namespaced Whole api::rbac::v1::RoleBinding;
    "rbac.authorization.k8s.io" "v1" "roles" "Role" NONE, NONE, Namespaced Whole api::rbac::v1::Role;
    "storage.k8s.io" "v1" "storageclasses" "StorageClass" &["sc"], NONE, Cluster Whole api::storage::v1::StorageClass;
    "admissionregistration.k8s.io" "v1" "mutatingwebhookconfigurations" "MutatingWebhookConfiguration" NONE, EXTENSIONS, Cluster Whole api::admissionregistration::v1::MutatingWebhookConfiguration;
    "admissionregistration.k8s.io" "v1" "validatingwebhookconfigurations" "ValidatingWebhookConfiguration" NONE, EXTENSIONS, Cluster Whole api::admissionregistration::v1::ValidatingWebhookConfiguration;
    "apiextensions.k8s.io" "v1" "customresourcedefinitions" "CustomResourceDefinition" &["crd", "crds"], EXTENSIONS, Cluster Status k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    "scheduling.k8s.io" "v1" "priorityclasses" "PriorityClass" &["pc"], NONE, Cluster Whole api::scheduling::v1::PriorityClass;
    "coordination.k8s.io" "v1" "leases" "Lease" NONE, NONE, Namespaced Whole api::coordination::v1::Lease;
    "discovery.k8s.io" "v1" "endpointslices" "EndpointSlice" NONE, NONE, Namespaced Whole api::discovery::v1::EndpointSlice;
};

/// Questions that are answered and not stored: group, version, plural, kind, scope.
const REVIEWS: &[(&str, &str, &str, &str, Scope)] = &[
    ("", "v1", "bindings", "Binding", Scope::Namespaced),
    ("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", Scope::Cluster),
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", Scope::Cluster),
    ("authorization.k8s.io", "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", Scope::Namespaced),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", Scope::Cluster),
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", Scope::Cluster),
    ("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", Scope::Cluster),
];

const POD_EXTRAS: &[Extra] = &[
    Extra { name: "attach", group: "", version: "", kind: "PodAttachOptions", verbs: &["create", "get"] },
    Extra { name: "binding", group: "", version: "", kind: "Binding", verbs: &["create"] },
    Extra { name: "ephemeralcontainers", group: "", version: "", kind: "Pod", verbs: &["get", "patch", "update"] },
    Extra { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: &["create"] },
    Extra { name: "exec", group: "", version: "", kind: "PodExecOptions", verbs: &["create", "get"] },
    Extra { name: "log", group: "", version: "", kind: "Pod", verbs: &["get"] },
    Extra { name: "portforward", group: "", version: "", kind: "PodPortForwardOptions", verbs: &["create", "get"] },
];

const SERVICE_ACCOUNT_EXTRAS: &[Extra] =
    &[Extra { name: "token", group: "authentication.k8s.io", version: "v1", kind: "TokenRequest", verbs: &["create"] }];

const NAMESPACE_EXTRAS: &[Extra] =
    &[Extra { name: "finalize", group: "", version: "", kind: "Namespace", verbs: &["update"] }];

/// The order in which discovery lists the groups; it decides which resource a bare plural name means.
const GROUPS: &[&str] = &[
    "",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
];

/// The registry with every built-in resource and no custom one.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.groups = GROUPS.iter().map(|g| (*g).to_owned()).collect();
    for row in ROWS {
        registry.add(row.resource());
    }
    for (group, version, plural, kind, scope) in REVIEWS {
        registry.add(Resource {
            group: (*group).into(),
            version: (*version).into(),
            plural: (*plural).into(),
            singular: kind.to_lowercase(),
            kind: (*kind).into(),
            list_kind: String::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: *scope == Scope::Namespaced,
            status: false,
            scale: None,
            extras: &[],
            storage: format!("{group}/{plural}").into(),
            shape: Shape::Review,
        });
    }
    registry
}

impl Row {
    fn resource(&self) -> Resource {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let extras = match (self.group, self.plural) {
            ("", "pods") => POD_EXTRAS,
            ("", "serviceaccounts") => SERVICE_ACCOUNT_EXTRAS,
            ("", "namespaces") => NAMESPACE_EXTRAS,
            _ => &[],
        };
        // Events are one resource with two faces.
        let storage =
            if self.group == "events.k8s.io" { "/events".into() } else { format!("{}/{}", self.group, self.plural) };
        Resource {
            group: self.group.into(),
            version: self.version.into(),
            plural: self.plural.into(),
            singular: self.kind.to_lowercase(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind),
            short_names: own(self.names.0),
            categories: own(self.names.1),
            namespaced: self.scope == Scope::Namespaced,
            status: self.parts != Parts::Whole,
            scale: (self.parts == Parts::Scaled).then(|| ScalePaths {
                replicas: "spec.replicas".into(),
                status_replicas: "status.replicas".into(),
                selector: None,
            }),
            extras,
            storage: storage.into(),
            shape: Shape::BuiltIn(self.typed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reading_as_a_type_drops_unknown_fields_and_refuses_wrong_types() {
        let registry = registry();
        let maps = registry.get("", "v1", "configmaps").expect("config maps are built in");
        let Shape::BuiltIn(typed) = maps.shape else { panic!("a config map is no custom resource") };
        let read = typed(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "what": 1}));
        assert_eq!(
            read.expect("readable"),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
        );
        assert!(typed(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": 1}})).is_err());
    }
}
