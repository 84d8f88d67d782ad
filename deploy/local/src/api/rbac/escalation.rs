//! Nobody gives away more than they have: who writes a role or a binding must hold what it grants.

use serde_json::Value;

use super::{Attributes, GROUP, What, allowed, allows, role_rules, rules_for};
use crate::api::object::{items, name, text};
use crate::api::path::Target;
use crate::api::server::Server;
use crate::api::status::{ApiError, about};
use crate::api::users::User;

/// Refuses a role or binding that grants what its author doesn't have. `object` is as it would be stored.
pub fn check_escalation(server: &Server, user: &User, target: &Target, object: &Value) -> Result<(), ApiError> {
    let resource = &target.resource;
    if !server.rbac || resource.group != GROUP || user.groups.iter().any(|group| group == "system:masters") {
        return Ok(());
    }
    let namespace = target.namespace.clone().unwrap_or_default();
    let may = |verb: &str, plural: &str, object: &str| {
        let what = What::Resource {
            group: GROUP.into(),
            resource: plural.into(),
            subresource: String::new(),
            namespace: namespace.clone(),
            name: object.into(),
        };
        allowed(server, user, &Attributes { verb: verb.into(), what }).is_some()
    };
    let (granted, excused) = match resource.plural.as_str() {
        "roles" | "clusterroles" => {
            (items(object, &["rules"]).to_vec(), may("escalate", &resource.plural, name(object)))
        }
        _ => {
            let role = &object["roleRef"];
            let plural = if text(role, &["kind"]) == "ClusterRole" { "clusterroles" } else { "roles" };
            let Some(rules) = role_rules(server, object) else { return Ok(()) };
            (rules, may("bind", plural, text(role, &["name"])))
        }
    };
    if excused {
        return Ok(());
    }
    let held = rules_for(server, user, &namespace);
    let missing = granted.iter().flat_map(single).find(|wanted| !held.iter().any(|rule| allows(rule, wanted)));
    let Some(missing) = missing else { return Ok(()) };
    let message = format!(
        "{} {:?} is forbidden: user {:?} is attempting to grant RBAC permissions not currently held: {missing:?}",
        resource.qualified(),
        name(object),
        user.name
    );
    Err(ApiError::new(403, "Forbidden", message).with_details(about(resource, name(object))))
}

/// Each single thing a rule allows. A star stands for itself: only a star covers it.
fn single(rule: &Value) -> Vec<Attributes> {
    let list = |field: &str| -> Vec<String> {
        items(rule, &[field]).iter().filter_map(Value::as_str).map(Into::into).collect()
    };
    let mut names = list("resourceNames");
    if names.is_empty() {
        names.push(String::new());
    }
    let mut all = Vec::new();
    for verb in list("verbs") {
        for path in list("nonResourceURLs") {
            all.push(Attributes { verb: verb.clone(), what: What::Path(path) });
        }
        for group in list("apiGroups") {
            for resource in list("resources") {
                let (resource, subresource) = resource.split_once('/').unwrap_or((&resource, ""));
                all.extend(names.iter().map(|name| {
                    let what = What::Resource {
                        group: group.clone(),
                        resource: resource.into(),
                        subresource: subresource.into(),
                        namespace: String::new(),
                        name: name.clone(),
                    };
                    Attributes { verb: verb.clone(), what }
                }));
            }
        }
    }
    all
}
