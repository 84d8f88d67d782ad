//! Who may do what: roles and their bindings, as Kubernetes reads them.
//!
//! Reviews are always answered from them; requests are held to them when the server is started so ([`enforce`]).

mod aggregation;
mod bootstrap;
mod escalation;
mod request;
mod rules;

use serde_json::Value;

use super::object::{items, name, namespace, text};
use super::server::Server;
use super::users::User;

pub use aggregation::{aggregate, concerns_aggregation};
pub use bootstrap::found;
pub use escalation::check_escalation;
pub use request::{enforce, enforce_path, impersonated};
pub use rules::{allows, non_resource_rules, resource_rules};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub verb: String,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Resource {
        group: String,
        resource: String,
        subresource: String,
        /// Empty for cluster-scoped resources and for all namespaces.
        namespace: String,
        name: String,
    },
    /// Something that is no resource, such as `/metrics`.
    Path(String),
}

impl Default for What {
    fn default() -> Self {
        Self::Path(String::new())
    }
}

/// The role that a binding gives a user.
struct Grant {
    rules: Vec<Value>,
    /// As a real server gives it for a reason.
    reason: String,
}

/// Why something is allowed (empty for administrators); `None` when it isn't.
pub fn allowed(server: &Server, user: &User, wanted: &Attributes) -> Option<String> {
    if user.groups.iter().any(|group| group == "system:masters") {
        return Some(String::new());
    }
    let namespace = match &wanted.what {
        What::Resource { namespace, .. } => namespace.as_str(),
        What::Path(_) => "",
    };
    let mut grants = grants(server, user, namespace);
    grants.find(|grant| grant.rules.iter().any(|rule| allows(rule, wanted))).map(|grant| grant.reason)
}

/// Every rule that holds for a user in a namespace, or in all of them if it is empty.
pub fn rules_for(server: &Server, user: &User, namespace: &str) -> Vec<Value> {
    grants(server, user, namespace).flat_map(|grant| grant.rules).collect()
}

fn grants<'a>(server: &'a Server, user: &'a User, within: &str) -> impl Iterator<Item = Grant> + use<'a> {
    let mut bindings = server.all(GROUP, "clusterrolebindings", None);
    if !within.is_empty() {
        bindings.extend(server.all(GROUP, "rolebindings", Some(within)));
    }
    bindings.into_iter().filter_map(move |binding| {
        let binding = &binding.value;
        let subject =
            items(binding, &["subjects"]).iter().find(|subject| is_subject(subject, namespace(binding), user))?;
        let rules = role_rules(server, binding)?;
        let kind = text(&binding["roleRef"], &["kind"]);
        let (binding_kind, binding_name) = match namespace(binding) {
            "" => ("ClusterRoleBinding", name(binding).to_owned()),
            namespace => ("RoleBinding", format!("{}/{namespace}", name(binding))),
        };
        let reason = format!(
            "RBAC: allowed by {binding_kind} {binding_name:?} of {kind} {:?} to {}",
            text(&binding["roleRef"], &["name"]),
            shown_subject(subject, namespace(binding)),
        );
        Some(Grant { rules, reason })
    })
}

/// The rules of the role that a binding names; `None` when there is no such role.
pub fn role_rules(server: &Server, binding: &Value) -> Option<Vec<Value>> {
    let role = text(&binding["roleRef"], &["name"]);
    let found = match text(&binding["roleRef"], &["kind"]) {
        "ClusterRole" => server.find(GROUP, "clusterroles", "", role),
        _ => server.find(GROUP, "roles", namespace(binding), role),
    };
    found.map(|role| items(&role.value, &["rules"]).to_vec())
}

fn is_subject(subject: &Value, binding_namespace: &str, user: &User) -> bool {
    let wanted = text(subject, &["name"]);
    match text(subject, &["kind"]) {
        "User" => user.name == wanted,
        "Group" => user.groups.iter().any(|group| group == wanted),
        "ServiceAccount" => {
            let namespace = Some(text(subject, &["namespace"])).filter(|n| !n.is_empty()).unwrap_or(binding_namespace);
            user.name == format!("system:serviceaccount:{namespace}:{wanted}")
        }
        _ => false,
    }
}

fn shown_subject(subject: &Value, binding_namespace: &str) -> String {
    let (kind, wanted) = (text(subject, &["kind"]), text(subject, &["name"]));
    if kind != "ServiceAccount" {
        return format!("{kind} {wanted:?}");
    }
    let namespace = Some(text(subject, &["namespace"])).filter(|n| !n.is_empty()).unwrap_or(binding_namespace);
    format!("{kind} \"{wanted}/{namespace}\"")
}
