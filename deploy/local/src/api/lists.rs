//! Which lists of the built-in kinds are maps or sets in disguise: what strategic merge and server-side apply need to know.

use serde_json::Value;

/// How the items of a list are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    /// The list is one value.
    Atomic,
    /// Items are scalars, and each is there once.
    Set,
    /// Items are maps, told apart by these keys.
    Keyed(Vec<String>),
}

/// The merge key of a list in a built-in kind, by the name of its field and the path to it. `None` for a list that is replaced
/// as a whole.
pub fn merge_key(path: &[&str], items: &Value) -> Option<&'static str> {
    let field = path.last().copied().unwrap_or_default();
    let parent = path.len().checked_sub(2).and_then(|i| path.get(i)).copied().unwrap_or_default();
    let maps = items.as_array().is_none_or(|items| items.iter().all(Value::is_object));
    if !maps {
        return None;
    }
    Some(match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets"
        | "webhooks"
        | "matchConditions"
        | "resourceClaims"
        | "schedulingGates"
        | "claims" => "name",
        "ports" if matches!(parent, "containers" | "initContainers" | "ephemeralContainers") => "containerPort",
        "ports" if parent == "spec" => "port",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" | "podIPs" | "hostIPs" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "conditions" | "readinessGates" if field == "conditions" => "type",
        "addresses" if parent == "status" => "type",
        "ownerReferences" => "uid",
        "taints" => "key",
        _ => return None,
    })
}

/// Whether a list of scalars is merged as a set.
pub fn is_merged_set(path: &[&str]) -> bool {
    path == ["metadata", "finalizers"] || path == ["spec", "podCIDRs"]
}

/// How server-side apply sees a list of a built-in kind.
pub fn owned_list(path: &[&str], items: &Value) -> ListKind {
    if is_merged_set(path) {
        return ListKind::Set;
    }
    let field = path.last().copied().unwrap_or_default();
    let parent = path.len().checked_sub(2).and_then(|i| path.get(i)).copied().unwrap_or_default();
    let keyed = |keys: &[&str]| ListKind::Keyed(keys.iter().map(|k| (*k).to_owned()).collect());
    match (field, merge_key(path, items)) {
        ("ports", Some("containerPort")) => keyed(&["containerPort", "protocol"]),
        ("ports", Some("port")) if parent == "spec" => keyed(&["port", "protocol"]),
        ("topologySpreadConstraints", Some(_)) => keyed(&["topologyKey", "whenUnsatisfiable"]),
        // Merged by strategic merge, but one value for server-side apply.
        ("taints" | "secrets", _) if path.first() == Some(&"spec") => ListKind::Atomic,
        (_, Some(key)) => keyed(&[key]),
        (_, None) => ListKind::Atomic,
    }
}

/// Maps that are one value for server-side apply: selectors, and the like.
pub fn is_atomic_map(path: &[&str]) -> bool {
    match path.last().copied().unwrap_or_default() {
        "selector" | "labelSelector" | "nodeSelector" | "namespaceSelector" | "objectSelector" | "podSelector"
        | "fieldRef" | "resourceFieldRef" | "secretKeyRef" | "configMapKeyRef" | "secretRef" | "configMapRef"
        | "scaleTargetRef" | "claimRef" | "roleRef" | "involvedObject" | "targetRef" => path.len() > 1,
        _ => false,
    }
}
