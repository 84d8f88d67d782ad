//! What a rule of a role allows. Pure.

use serde_json::{Value, json};

use super::{Attributes, What};
use crate::api::object::items;

fn lists(rule: &Value, field: &str, wanted: &str) -> bool {
    items(rule, &[field]).iter().any(|item| item == "*" || item == wanted)
}

/// Whether a rule allows something.
pub fn allows(rule: &Value, wanted: &Attributes) -> bool {
    if !lists(rule, "verbs", &wanted.verb) {
        return false;
    }
    match &wanted.what {
        What::Path(path) => items(rule, &["nonResourceURLs"])
            .iter()
            .filter_map(Value::as_str)
            .any(|pattern| pattern == path || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))),
        What::Resource { group, resource, subresource, name, .. } => {
            let names = items(rule, &["resourceNames"]);
            lists(rule, "apiGroups", group)
                && items(rule, &["resources"])
                    .iter()
                    .filter_map(Value::as_str)
                    .any(|pattern| resource_matches(pattern, resource, subresource))
                && (names.is_empty() || names.iter().any(|listed| listed == name.as_str()))
        }
    }
}

/// `pods`, `pods/log`, `*/scale`, `*`.
fn resource_matches(pattern: &str, resource: &str, subresource: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => subresource.is_empty() && pattern == resource,
        Some((main, sub)) => !subresource.is_empty() && sub == subresource && (main == "*" || main == resource),
    }
}

/// Rules about resources, as SelfSubjectRulesReview tells them.
pub fn resource_rules(rules: &[Value]) -> Vec<Value> {
    told(rules, "resources", &["verbs", "apiGroups", "resources", "resourceNames"])
}

/// Rules about paths, as SelfSubjectRulesReview tells them.
pub fn non_resource_rules(rules: &[Value]) -> Vec<Value> {
    told(rules, "nonResourceURLs", &["verbs", "nonResourceURLs"])
}

fn told(rules: &[Value], about: &str, fields: &[&str]) -> Vec<Value> {
    let about = rules.iter().filter(|rule| !items(rule, &[about]).is_empty());
    about
        .map(|rule| {
            let mut shown = json!({});
            for field in fields.iter().filter(|field| !items(rule, &[field]).is_empty()) {
                shown[*field] = rule[*field].clone();
            }
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(verb: &str, group: &str, resource: &str, subresource: &str, name: &str) -> Attributes {
        let own = |text: &str| text.to_owned();
        let what = What::Resource {
            group: own(group),
            resource: own(resource),
            subresource: own(subresource),
            namespace: String::new(),
            name: own(name),
        };
        Attributes { verb: own(verb), what }
    }

    #[test]
    fn a_rule_allows_what_all_its_lists_name() {
        let rule = json!({"verbs": ["get", "list"], "apiGroups": ["apps"], "resources": ["deployments", "*/scale"]});
        assert!(allows(&rule, &wants("get", "apps", "deployments", "", "x")));
        assert!(allows(&rule, &wants("get", "apps", "statefulsets", "scale", "x")));
        assert!(!allows(&rule, &wants("get", "apps", "deployments", "status", "x")));
        assert!(!allows(&rule, &wants("delete", "apps", "deployments", "", "x")));
        assert!(!allows(&rule, &wants("get", "", "deployments", "", "x")));
    }

    #[test]
    fn names_narrow_a_rule_and_stars_widen_it() {
        let rule = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["x"]});
        assert!(allows(&rule, &wants("delete", "a", "b", "c", "x")));
        assert!(!allows(&rule, &wants("delete", "a", "b", "c", "y")));
        assert!(!allows(&rule, &wants("list", "a", "b", "", "")));
    }

    #[test]
    fn paths_match_by_prefix() {
        let rule = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]});
        let path = |path: &str| Attributes { verb: "get".into(), what: What::Path(path.into()) };
        assert!(allows(&rule, &path("/healthz")) && allows(&rule, &path("/api/v1")));
        assert!(!allows(&rule, &path("/healthz/x")) && !allows(&rule, &path("/apis")));
    }
}
