//! The roles and bindings that every cluster begins with.

use serde_json::{Value, json};

use super::GROUP;
use crate::api::database::Key;
use crate::api::namespaces::own;
use crate::api::server::Server;

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];

fn rule(groups: &[&str], resources: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources.split(' ').collect::<Vec<_>>(), "verbs": verbs})
}

fn paths(paths: &str) -> Value {
    json!({"nonResourceURLs": paths.split(' ').collect::<Vec<_>>(), "verbs": ["get"]})
}

/// What one may see in a namespace, beside Secrets and roles.
const VISIBLE: [(&str, &str); 7] = [
    (
        "",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods pods/log pods/status \
         replicationcontrollers replicationcontrollers/scale replicationcontrollers/status serviceaccounts services services/status \
         bindings events limitranges namespaces namespaces/status resourcequotas resourcequotas/status",
    ),
    ("discovery.k8s.io", "endpointslices"),
    (
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets \
         replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    ("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    ("batch", "cronjobs cronjobs/status jobs jobs/status"),
    ("policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    ("networking.k8s.io", "ingresses ingresses/status networkpolicies"),
];

/// What one may change in a namespace.
const CHANGEABLE: [(&str, &str); 7] = [
    (
        "",
        "pods pods/attach pods/exec pods/portforward pods/proxy configmaps events persistentvolumeclaims replicationcontrollers \
         replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    ),
    ("", "pods/eviction serviceaccounts/token"),
    (
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
    ),
    ("autoscaling", "horizontalpodautoscalers"),
    ("batch", "cronjobs jobs"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "ingresses networkpolicies"),
];

fn view() -> Vec<Value> {
    VISIBLE.iter().map(|(group, resources)| rule(&[group], resources, &READ)).collect()
}

fn edit() -> Vec<Value> {
    let mut rules = vec![
        rule(&[""], "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", &READ),
        rule(&[""], "serviceaccounts", &["impersonate"]),
        rule(
            &["coordination.k8s.io"],
            "leases",
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        ),
    ];
    rules.extend(CHANGEABLE.iter().map(|(group, resources)| rule(&[group], resources, &WRITE)));
    rules
}

fn admin() -> Vec<Value> {
    let all = [&WRITE[..], &READ[..]].concat();
    vec![
        rule(&["authorization.k8s.io"], "localsubjectaccessreviews", &["create"]),
        rule(&[GROUP], "rolebindings roles", &all),
    ]
}

/// Makes what is missing of the roles and bindings that every cluster begins with.
pub fn found(server: &Server) {
    let everything = vec![
        json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
        json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
    ];
    let basic = vec![
        rule(&["authorization.k8s.io"], "selfsubjectaccessreviews selfsubjectrulesreviews", &["create"]),
        rule(&["authentication.k8s.io"], "selfsubjectreviews", &["create"]),
    ];
    let discovery =
        vec![paths("/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")];
    let information = vec![paths("/healthz /livez /readyz /version /version/")];
    let issuer = vec![paths(
        "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
    )];
    for (name, rules, subjects) in [
        ("cluster-admin", everything, &["system:masters"][..]),
        ("system:basic-user", basic, &["system:authenticated"]),
        ("system:discovery", discovery, &["system:authenticated"]),
        ("system:public-info-viewer", information, &["system:authenticated", "system:unauthenticated"]),
        ("system:service-account-issuer-discovery", issuer, &["system:serviceaccounts"]),
    ] {
        role(server, name, json!({"rules": rules}), json!({}));
        binding(server, name, subjects);
    }
    for (name, rules, part_of) in [("view", view(), "edit"), ("edit", edit(), "admin"), ("admin", admin(), "")] {
        let label = |name: &str| format!("rbac.authorization.k8s.io/aggregate-to-{name}");
        let mut labels = json!({});
        if !part_of.is_empty() {
            labels[label(part_of)] = json!("true");
        }
        let selector = json!({"matchLabels": {label(name): "true"}});
        role(server, name, json!({"aggregationRule": {"clusterRoleSelectors": [selector]}, "rules": null}), labels);
        let own = json!({label(name): "true"});
        role(server, &format!("system:aggregate-to-{name}"), json!({"rules": rules}), own);
    }
    // Twice: a role may be part of one that comes before it.
    super::aggregate(server);
    super::aggregate(server);
}

fn role(server: &Server, name: &str, mut role: Value, mut labels: Value) {
    labels["kubernetes.io/bootstrapping"] = json!("rbac-defaults");
    role["apiVersion"] = json!(format!("{GROUP}/v1"));
    role["kind"] = json!("ClusterRole");
    role["metadata"] =
        json!({"labels": labels, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}});
    own(server, GROUP, "clusterroles", &Key::new("", name), role);
}

fn binding(server: &Server, name: &str, groups: &[&str]) {
    let subjects: Vec<Value> =
        groups.iter().map(|group| json!({"apiGroup": GROUP, "kind": "Group", "name": group})).collect();
    let binding = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": subjects,
    });
    own(server, GROUP, "clusterrolebindings", &Key::new("", name), binding);
}
