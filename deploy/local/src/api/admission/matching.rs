//! Which webhooks a request concerns.

use std::sync::Arc;

use serde_json::Value;

use super::Question;
use crate::api::object::{at, items, name, namespace, text};
use crate::api::resource::Resource;
use crate::api::selector::LabelSelector;
use crate::api::server::Server;

/// One webhook of a configuration.
#[derive(Debug, Clone)]
pub struct Hook {
    pub name: String,
    /// The name of its configuration.
    pub configuration: String,
    pub mutating: bool,
    /// Whether a request goes on when the webhook can't be asked.
    pub ignorable: bool,
    /// Whether it wants to be called again after later changes.
    pub reinvoked: bool,
    pub timeout_seconds: u64,
    pub client: Value,
    /// The CEL expressions of `matchConditions`.
    pub conditions: Vec<String>,
    equivalent: bool,
    rules: Vec<Value>,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

/// That a webhook wants to be asked, and in which version of the resource.
#[derive(Debug, Clone)]
pub struct Match {
    pub resource: Arc<Resource>,
}

impl Hook {
    /// The webhooks of a configuration.
    pub fn of(configuration: &Value, mutating: bool) -> Vec<Self> {
        let hooks = items(configuration, &["webhooks"]).iter();
        hooks
            .map(|hook| Self {
                name: text(hook, &["name"]).into(),
                configuration: name(configuration).into(),
                mutating,
                ignorable: text(hook, &["failurePolicy"]) == "Ignore",
                reinvoked: text(hook, &["reinvocationPolicy"]) == "IfNeeded",
                timeout_seconds: hook["timeoutSeconds"].as_u64().unwrap_or(10),
                client: hook["clientConfig"].clone(),
                conditions: items(hook, &["matchConditions"])
                    .iter()
                    .map(|condition| text(condition, &["expression"]).into())
                    .collect(),
                equivalent: text(hook, &["matchPolicy"]) != "Exact",
                rules: items(hook, &["rules"]).to_vec(),
                namespaces: LabelSelector::from_object(&hook["namespaceSelector"]),
                objects: LabelSelector::from_object(&hook["objectSelector"]),
            })
            .collect()
    }

    /// Whether a request concerns this webhook.
    pub fn matches(&self, server: &Server, resource: &Arc<Resource>, question: Question<'_>) -> Option<Match> {
        let rule = |candidate: &Resource| self.rules.iter().any(|rule| rule_matches(rule, candidate, question));
        let matched = if rule(resource) {
            resource.clone()
        } else if self.equivalent {
            // The same objects through another version or group.
            let registry = server.registry();
            registry.iter().find(|other| other.storage == resource.storage && rule(other))?.clone()
        } else {
            return None;
        };
        let objects = [question.object, question.old];
        let selected =
            self.objects.is_empty() || objects.into_iter().flatten().any(|object| self.objects.matches(object));
        (selected && self.selects_namespace(server, resource, question)).then_some(Match { resource: matched })
    }

    fn selects_namespace(&self, server: &Server, resource: &Resource, question: Question<'_>) -> bool {
        if self.namespaces.is_empty() {
            return true;
        }
        let Some(object) = question.object.or(question.old) else { return true };
        if resource.is("", "namespaces") {
            return self.namespaces.matches(object);
        }
        if !resource.namespaced {
            return true;
        }
        let own = server.find("", "namespaces", "", namespace(object));
        own.is_some_and(|own| self.namespaces.matches(&own.value))
    }
}

fn rule_matches(rule: &Value, resource: &Resource, question: Question<'_>) -> bool {
    let names = |field: &str, wanted: &str| {
        let listed = at(rule, &[field]).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        listed.iter().any(|v| v == "*" || v == wanted)
    };
    let scope = match text(rule, &["scope"]) {
        "Namespaced" => resource.namespaced,
        "Cluster" => !resource.namespaced,
        _ => true,
    };
    scope
        && names("operations", question.operation.name())
        && names("apiGroups", &resource.group)
        && names("apiVersions", &resource.version)
        && items(rule, &["resources"])
            .iter()
            .filter_map(Value::as_str)
            .any(|pattern| resource_matches(pattern, &resource.plural, question.subresource))
}

/// `pods`, `pods/status`, `pods/*`, `*`, `*/scale`, `*/*`.
fn resource_matches(pattern: &str, plural: &str, subresource: &str) -> bool {
    let (main, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
    (main == "*" || main == plural) && (sub == subresource || sub == "*")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::admission::Operation;
    use crate::api::builtin;
    use serde_json::json;

    #[test]
    fn patterns_name_resources_and_subresources() {
        assert!(resource_matches("pods", "pods", ""));
        assert!(!resource_matches("pods", "pods", "status"));
        assert!(resource_matches("pods/*", "pods", "status"));
        assert!(resource_matches("*/*", "services", ""));
        assert!(resource_matches("*/scale", "deployments", "scale"));
        assert!(!resource_matches("*", "deployments", "scale"));
    }

    #[test]
    fn a_rule_needs_operation_group_version_resource_and_scope() {
        let registry = builtin::registry();
        let pods = registry.get("", "v1", "pods").unwrap();
        let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "scope": "*"});
        let question = |operation| Question { operation, subresource: "", object: None, old: None };
        assert!(rule_matches(&rule, pods, question(Operation::Create)));
        assert!(!rule_matches(&rule, pods, question(Operation::Delete)));
        let cluster = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "Cluster"});
        assert!(!rule_matches(&cluster, pods, question(Operation::Create)));
    }
}
