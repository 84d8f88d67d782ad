//! What the running control plane says about itself.

use std::collections::BTreeMap;

use super::exposition::Exposition;
use crate::catalog::Catalog;
use crate::publish::Counters;

/// Writes all families.
pub(super) fn render(catalog: &Catalog, counters: &Counters, out: &mut Exposition) {
    let monitored = catalog.namespaces().iter().filter(|(_, namespace)| catalog.mesh().monitors(namespace)).count();
    for (name, kind, help, value) in [
        ("fsm_resource_namespace_count", "gauge", "Namespaces that belong to the mesh.", monitored as u64),
        ("fsm_published_seq", "gauge", "Last version (seq) that was published.", catalog.seq().0),
        ("fsm_versions_total", "counter", "Versions that were published.", counters.versions()),
        ("fsm_proxy_updates_total", "counter", "Updates for proxies, over all versions.", counters.updates()),
    ] {
        out.family(name, kind, help);
        out.sample(name, &[], value as f64);
    }
    let mut unusable: BTreeMap<&str, u64> = BTreeMap::new();
    for ((gvk, _), _) in catalog.unusable().iter() {
        *unusable.entry(gvk.rsplit('/').next().unwrap_or_default()).or_default() += 1;
    }
    let name = "fsm_unusable_object_count";
    out.family(name, "gauge", "Objects that are invalid, and count as absent.");
    for (kind, count) in unusable {
        out.sample(name, &[("kind", kind)], count as f64);
    }
    let name = "fsm_actor_restarts_total";
    out.family(name, "counter", "Restarts of actors after a panic.");
    for (actor, count) in counters.restarts() {
        out.sample(name, &[("actor", actor)], count as f64);
    }
}
