//! ClusterRoles that are made of others: `admin`, `edit` and `view`, and whatever else has an `aggregationRule`.

use serde_json::{Value, json};

use super::GROUP;
use crate::api::database::{Change, Expect, Key};
use crate::api::object::{as_map, at, items, name};
use crate::api::selector::LabelSelector;
use crate::api::server::Server;

/// Whether after a change some role may have to be put together anew.
pub fn concerns_aggregation(change: &Change) -> bool {
    *change.storage == *"rbac.authorization.k8s.io/clusterroles"
}

/// Puts every aggregated role together from those its selectors name.
pub fn aggregate(server: &Server) {
    let roles = server.all(GROUP, "clusterroles", None);
    for role in roles.iter().filter(|role| at(&role.value, &["aggregationRule"]).is_some_and(|rule| !rule.is_null())) {
        let selectors: Vec<LabelSelector> = items(&role.value, &["aggregationRule", "clusterRoleSelectors"])
            .iter()
            .map(LabelSelector::from_object)
            .collect();
        let mut rules: Vec<&Value> = Vec::new();
        for selector in &selectors {
            let chosen =
                roles.iter().filter(|other| name(&other.value) != name(&role.value) && selector.matches(&other.value));
            for rule in chosen.flat_map(|other| items(&other.value, &["rules"])) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        if items(&role.value, &["rules"]).iter().ne(rules.iter().copied()) {
            let mut next = role.value.clone();
            as_map(&mut next).insert("rules".into(), json!(rules));
            let key = Key::new("", name(&role.value));
            // Changed meanwhile: the change itself brings us back here.
            let _ = server.database.store(
                &format!("{GROUP}/clusterroles").into(),
                &key,
                Expect::Version(role.version),
                next,
            );
        }
    }
}
