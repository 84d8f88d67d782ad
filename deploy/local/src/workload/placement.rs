//! Which node a pod may run on, and which of those is best. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

/// A pod that has its node.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub pod: Arc<Pod>,
    pub node: String,
}

/// The name of the best node, or why there is none, in the scheduler's words.
pub(super) fn choose(pod: &Pod, nodes: &[Arc<Node>], placed: &[Placed]) -> Result<String, String> {
    let mut reasons: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for node in nodes {
        match unfit(pod, node).or_else(|| unfit_beside(pod, node, nodes, placed)) {
            None => fitting.push(node),
            Some(why) => *reasons.entry(why).or_default() += 1,
        }
    }
    let owner = |pod: &Pod| pod.metadata.owner_references.iter().flatten().next().map(|o| o.uid.clone());
    let own = owner(pod);
    let zone = |node: &Node| node.labels().get(crate::service::ZONE).cloned();
    let zones: BTreeMap<String, Option<String>> = nodes.iter().map(|n| (n.name_any(), zone(n))).collect();
    // Pods of one owner are spread over zones, then over nodes.
    let best = fitting.into_iter().min_by_key(|node| {
        let (name, zone) = (node.name_any(), zone(node));
        let siblings = || placed.iter().filter(|p| own.is_some() && owner(&p.pod) == own);
        let in_zone = siblings().filter(|p| zones.get(&p.node) == Some(&zone)).count();
        let on_node = siblings().filter(|p| p.node == name).count();
        (in_zone, on_node, placed.iter().filter(|p| p.node == name).count(), name)
    });
    best.map(|node| node.name_any()).ok_or_else(|| {
        let mut why: Vec<_> = reasons.iter().map(|(why, count)| format!("{count} {why}")).collect();
        why.sort();
        format!("0/{} nodes are available: {}.", nodes.len(), why.join(", "))
    })
}

/// Why the node does not take the pod, whoever else is on it.
pub(super) fn unfit(pod: &Pod, node: &Node) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if !matches_affinity(pod, node) {
        return Some("node(s) didn't match Pod's node affinity/selector");
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let node_spec = node.spec.as_ref();
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if node_spec.is_some_and(|s| s.unschedulable == Some(true)) && !tolerates(tolerations, &cordon) {
        return Some("node(s) were unschedulable");
    }
    let taints = node_spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let untolerated = taints.iter().any(|t| t.effect != "PreferNoSchedule" && !tolerates(tolerations, t));
    untolerated.then_some("node(s) had untolerated taint(s)")
}

/// `nodeSelector` and the required part of `nodeAffinity`.
pub(super) fn matches_affinity(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.labels().get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let by_label = |r: &NodeSelectorRequirement| holds(r, node.labels().get(&r.key).map(String::as_str));
    let name = node.name_any();
    let by_field = |r: &NodeSelectorRequirement| holds(r, (r.key == "metadata.name").then_some(name.as_str()));
    let (labels, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    // A term that says nothing matches nothing.
    let says = term.match_expressions.is_some() || term.match_fields.is_some();
    says && labels.into_iter().all(by_label) && fields.into_iter().all(by_field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = || requirement.values.iter().flatten();
    let among = |value: &str| listed().any(|v| v == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let limit = listed().next().and_then(|v| number(v));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => !value.is_some_and(among),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(limit).is_some_and(|(value, limit)| value > limit),
        "Lt" => value.and_then(number).zip(limit).is_some_and(|(value, limit)| value < limit),
        _ => false,
    }
}

fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| {
        let effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect);
        let key = t.key.as_deref().unwrap_or_default();
        let value = || t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
        let exists = t.operator.as_deref() == Some("Exists");
        effect && ((key.is_empty() && exists) || (key == taint.key && (exists || value())))
    })
}

/// Why the pod can't be beside those that are there (required pod affinity and anti-affinity).
fn unfit_beside(pod: &Pod, node: &Node, nodes: &[Arc<Node>], placed: &[Placed]) -> Option<&'static str> {
    let affinity = pod.spec.as_ref().and_then(|s| s.affinity.as_ref())?;
    let together = affinity.pod_affinity.as_ref();
    let together = together.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let apart = affinity.pod_anti_affinity.as_ref();
    let apart = apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let near = |term: &PodAffinityTerm| neighbours(pod, term, node, nodes, placed);
    if apart.into_iter().flatten().any(near) {
        return Some("node(s) didn't match pod anti-affinity rules");
    }
    // The first of a group that wants to be together has nobody to join, and may be anywhere.
    let first_of_its_kind =
        |term: &PodAffinityTerm| selects(term, pod, pod) && !placed.iter().any(|p| selects(term, pod, &p.pod));
    let lonely = |term: &&PodAffinityTerm| !near(term) && !first_of_its_kind(term);
    together.into_iter().flatten().any(|term| lonely(&term)).then_some("node(s) didn't match pod affinity rules")
}

/// Whether a pod the term means is in the node's part of the topology.
fn neighbours(pod: &Pod, term: &PodAffinityTerm, node: &Node, nodes: &[Arc<Node>], placed: &[Placed]) -> bool {
    let Some(part) = node.labels().get(&term.topology_key) else { return false };
    let inside =
        |name: &str| nodes.iter().any(|n| n.name_any() == name && n.labels().get(&term.topology_key) == Some(part));
    placed.iter().any(|p| selects(term, pod, &p.pod) && inside(&p.node))
}

fn selects(term: &PodAffinityTerm, pod: &Pod, other: &Pod) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let namespace = other.namespace();
    let in_namespace = match (&term.namespace_selector, listed) {
        (None, []) => namespace == pod.namespace(),
        (_, listed) if namespace.as_ref().is_some_and(|n| listed.contains(n)) => true,
        // An empty selector means every namespace; namespaces' labels are not looked at.
        (Some(selector), _) => *selector == LabelSelector::default(),
        (None, _) => false,
    };
    let selector = term.label_selector.clone().and_then(|s| Selector::try_from(s).ok());
    in_namespace && selector.is_some_and(|s| s.matches(other.labels()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn nodes() -> Vec<Arc<Node>> {
        let node = |name: &str, zone: &str, spec: Value| {
            let labels = json!({"kubernetes.io/hostname": name, crate::service::ZONE: zone});
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).unwrap(),
            )
        };
        let taint = json!([{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]);
        vec![node("one", "a", json!({})), node("two", "b", json!({})), node("three", "c", json!({"taints": taint}))]
    }

    fn pod(name: &str, spec: Value) -> Pod {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web"}]);
        let labels = json!({"app": "web"});
        let metadata = json!({"name": name, "namespace": "shop", "labels": labels, "ownerReferences": owner});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn on(node: &str) -> Placed {
        Placed { pod: Arc::new(pod(node, json!({"containers": []}))), node: node.into() }
    }

    fn chosen(spec: Value, placed: &[Placed]) -> Result<String, String> {
        let mut spec = spec;
        spec["containers"] = json!([]);
        choose(&pod("new", spec), &nodes(), placed)
    }

    #[test]
    fn pods_of_one_owner_are_spread() {
        assert_eq!(chosen(json!({}), &[]).unwrap(), "one");
        assert_eq!(chosen(json!({}), &[on("one")]).unwrap(), "two");
        assert_eq!(chosen(json!({}), &[on("one"), on("two"), on("two")]).unwrap(), "one");
    }

    #[test]
    fn selectors_affinity_and_taints_decide_who_is_fit() {
        assert_eq!(chosen(json!({"nodeSelector": {"kubernetes.io/hostname": "two"}}), &[]).unwrap(), "two");
        let tolerates = json!([{"key": "dedicated", "operator": "Exists"}]);
        let name = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["three"]}]}]}}});
        assert_eq!(chosen(json!({"affinity": name, "tolerations": tolerates}), &[]).unwrap(), "three");
        let refused = chosen(json!({"affinity": name}), &[]).unwrap_err();
        assert_eq!(
            refused,
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector."
        );
    }

    #[test]
    fn pods_can_insist_on_company_or_solitude() {
        let term = json!([{"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": crate::service::ZONE}]);
        let rule = |kind: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
        assert_eq!(chosen(rule("podAntiAffinity"), &[on("one")]).unwrap(), "two");
        assert!(chosen(rule("podAntiAffinity"), &[on("one"), on("two")]).unwrap_err().contains("anti-affinity"));
        assert_eq!(chosen(rule("podAffinity"), &[on("two")]).unwrap(), "two");
        assert_eq!(chosen(rule("podAffinity"), &[]).unwrap(), "one");
    }
}
