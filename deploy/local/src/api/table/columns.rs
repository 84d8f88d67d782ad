//! The columns of each kind.

use serde_json::{Value, json};

use super::{Column, age, name_of};
use crate::api::object::{at, items, text};
use crate::api::resource::Resource;

/// Makes the cell of an object.
pub type Cell = Box<dyn Fn(&Value) -> Value + Send + Sync>;

/// The columns of a resource: for custom resources those of the definition, otherwise name, the kind's own, and age.
pub fn of(resource: &Resource) -> Vec<(Column, Cell)> {
    let mut columns: Vec<(Column, Cell)> = vec![(Column::new("Name", "string", 0), Box::new(name_of))];
    if let Some(custom) = resource.custom() {
        if custom.columns.is_empty() {
            columns.push((Column::new("Age", "date", 0), Box::new(age)));
        }
        columns.extend(custom.columns.iter().map(custom_column));
        return columns;
    }
    let own = built_in(&resource.group, &resource.plural);
    let (narrow, wide): (Vec<_>, Vec<_>) = own.iter().partition(|(_, _, priority, _)| *priority == 0);
    let column = |(name, kind, priority, cell): &(&str, &str, i64, fn(&Value) -> Value)| {
        (Column::new(name, kind, *priority), Box::new(*cell) as Cell)
    };
    columns.extend(narrow.into_iter().map(column));
    columns.push((Column::new("Age", "string", 0), Box::new(age)));
    columns.extend(wide.into_iter().map(column));
    columns
}

fn custom_column(definition: &Value) -> (Column, Cell) {
    let kind = text(definition, &["type"]).to_owned();
    let column = Column {
        name: text(definition, &["name"]).into(),
        kind: kind.clone(),
        format: text(definition, &["format"]).into(),
        priority: definition["priority"].as_i64().unwrap_or(0),
    };
    let path = text(definition, &["jsonPath"]).to_owned();
    let cell = move |object: &Value| match (json_path(object, &path), kind.as_str()) {
        (Some(Value::String(instant)), "date") => json!(super::since(instant)),
        (Some(value @ (Value::Array(_) | Value::Object(_))), _) => json!(value.to_string()),
        (Some(value), "string") if !value.is_string() => json!(value.to_string()),
        (Some(value), _) => value.clone(),
        (None, _) => Value::Null,
    };
    (column, Box::new(cell))
}

/// The simple JSONPath of printer columns: `.spec.a['b.c'][0].d` and `[?(@.type=="Ready")]`.
fn json_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    let mut rest = path.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            // A dot within a key is written `\.`.
            let mut end = after.len();
            let bytes = after.as_bytes();
            for (i, byte) in bytes.iter().enumerate() {
                if (*byte == b'.' && (i == 0 || bytes[i - 1] != b'\\')) || *byte == b'[' {
                    end = i;
                    break;
                }
            }
            if end > 0 {
                value = value.get(after[..end].replace("\\.", "."))?;
            }
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']')?;
            let inside = after[..end].trim();
            rest = &after[end + 1..];
            value = if let Some(filter) = inside.strip_prefix("?(@.").and_then(|f| f.strip_suffix(')')) {
                let (key, wanted) = filter.split_once("==")?;
                let wanted = wanted.trim().trim_matches(['"', '\'']);
                value.as_array()?.iter().find(|item| item.get(key.trim()).is_some_and(|v| v == wanted))?
            } else if let Ok(index) = inside.parse::<usize>() {
                value.get(index)?
            } else {
                value.get(inside.trim_matches(['"', '\'']))?
            };
        } else {
            return None;
        }
    }
    Some(value)
}

type BuiltIn = (&'static str, &'static str, i64, fn(&Value) -> Value);

/// Name, type, priority and content of a built-in kind's own columns.
fn built_in(group: &str, plural: &str) -> &'static [BuiltIn] {
    match (group, plural) {
        ("", "pods") => &[
            ("Ready", "string", 0, |p| json!(format!("{}/{}", pod_ready(p).0, pod_ready(p).1))),
            ("Status", "string", 0, |p| json!(pod_status(p))),
            ("Restarts", "string", 0, |p| json!(pod_restarts(p).to_string())),
            ("IP", "string", 1, |p| or_none(text(p, &["status", "podIP"]))),
            ("Node", "string", 1, |p| or_none(text(p, &["spec", "nodeName"]))),
            ("Nominated Node", "string", 1, |p| or_none(text(p, &["status", "nominatedNodeName"]))),
            ("Readiness Gates", "string", 1, |_| json!("<none>")),
        ],
        ("", "services") => &[
            ("Type", "string", 0, |s| s["spec"]["type"].clone()),
            ("Cluster-IP", "string", 0, |s| or_none(text(s, &["spec", "clusterIP"]))),
            ("External-IP", "string", 0, |s| match text(s, &["spec", "type"]) {
                "ExternalName" => s["spec"]["externalName"].clone(),
                "LoadBalancer" => json!("<pending>"),
                _ => json!("<none>"),
            }),
            ("Port(s)", "string", 0, |s| json!(service_ports(s))),
            ("Selector", "string", 1, |s| json!(pairs(&s["spec"]["selector"]))),
        ],
        ("", "namespaces") => &[("Status", "string", 0, |n| n["status"]["phase"].clone())],
        ("", "nodes") => &[
            ("Status", "string", 0, |n| {
                let ready =
                    items(n, &["status", "conditions"]).iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
                json!(if ready { "Ready" } else { "NotReady" })
            }),
            ("Roles", "string", 0, |_| json!("<none>")),
            ("Version", "string", 1, |n| n["status"]["nodeInfo"]["kubeletVersion"].clone()),
        ],
        ("", "configmaps") => &[("Data", "string", 0, |c| json!(count(&c["data"]) + count(&c["binaryData"])))],
        ("", "secrets") => {
            &[("Type", "string", 0, |s| s["type"].clone()), ("Data", "string", 0, |s| json!(count(&s["data"])))]
        }
        ("", "serviceaccounts") => &[("Secrets", "string", 0, |s| json!(count(&s["secrets"])))],
        ("", "endpoints") => &[("Endpoints", "string", 0, |e| json!(endpoints(e)))],
        ("", "events") => &[
            ("Type", "string", 0, |e| e["type"].clone()),
            ("Reason", "string", 0, |e| e["reason"].clone()),
            ("Object", "string", 0, |e| {
                let object = &e["involvedObject"];
                json!(format!("{}/{}", text(object, &["kind"]).to_lowercase(), text(object, &["name"])))
            }),
            ("Message", "string", 0, |e| e["message"].clone()),
        ],
        ("apps", "deployments") => &[
            ("Ready", "string", 0, |d| {
                json!(format!("{}/{}", number(d, "status", "readyReplicas"), number(d, "spec", "replicas")))
            }),
            ("Up-to-date", "string", 0, |d| json!(number(d, "status", "updatedReplicas"))),
            ("Available", "string", 0, |d| json!(number(d, "status", "availableReplicas"))),
            ("Containers", "string", 1, |d| json!(template_list(d, "name"))),
            ("Images", "string", 1, |d| json!(template_list(d, "image"))),
            ("Selector", "string", 1, |d| json!(pairs(&d["spec"]["selector"]["matchLabels"]))),
        ],
        ("apps", "replicasets") => &[
            ("Desired", "integer", 0, |r| json!(number(r, "spec", "replicas"))),
            ("Current", "integer", 0, |r| json!(number(r, "status", "replicas"))),
            ("Ready", "integer", 0, |r| json!(number(r, "status", "readyReplicas"))),
            ("Containers", "string", 1, |d| json!(template_list(d, "name"))),
            ("Images", "string", 1, |d| json!(template_list(d, "image"))),
        ],
        ("apps", "statefulsets") => &[
            ("Ready", "string", 0, |s| {
                json!(format!("{}/{}", number(s, "status", "readyReplicas"), number(s, "spec", "replicas")))
            }),
            ("Containers", "string", 1, |d| json!(template_list(d, "name"))),
            ("Images", "string", 1, |d| json!(template_list(d, "image"))),
        ],
        ("apps", "daemonsets") => &[
            ("Desired", "integer", 0, |d| json!(number(d, "status", "desiredNumberScheduled"))),
            ("Current", "integer", 0, |d| json!(number(d, "status", "currentNumberScheduled"))),
            ("Ready", "integer", 0, |d| json!(number(d, "status", "numberReady"))),
            ("Available", "integer", 0, |d| json!(number(d, "status", "numberAvailable"))),
        ],
        ("batch", "jobs") => &[
            ("Status", "string", 0, |j| {
                let done = |kind: &str| {
                    items(j, &["status", "conditions"]).iter().any(|c| c["type"] == kind && c["status"] == "True")
                };
                json!(if done("Complete") {
                    "Complete"
                } else if done("Failed") {
                    "Failed"
                } else {
                    "Running"
                })
            }),
            ("Completions", "string", 0, |j| {
                json!(format!("{}/{}", number(j, "status", "succeeded"), number(j, "spec", "completions")))
            }),
        ],
        ("batch", "cronjobs") => &[
            ("Schedule", "string", 0, |c| c["spec"]["schedule"].clone()),
            ("Suspend", "boolean", 0, |c| json!(c["spec"]["suspend"].to_string())),
        ],
        ("discovery.k8s.io", "endpointslices") => &[
            ("AddressType", "string", 0, |s| s["addressType"].clone()),
            ("Ports", "string", 0, |s| json!(slice_ports(s))),
            ("Endpoints", "string", 0, |s| json!(slice_addresses(s))),
        ],
        ("coordination.k8s.io", "leases") => &[("Holder", "string", 0, |l| l["spec"]["holderIdentity"].clone())],
        ("apiextensions.k8s.io", _) => &[("Created At", "date", 0, |c| c["metadata"]["creationTimestamp"].clone())],
        ("admissionregistration.k8s.io", _) => &[("Webhooks", "integer", 0, |c| json!(count(&c["webhooks"])))],
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => &[("Role", "string", 0, |b| {
            json!(format!("{}/{}", text(b, &["roleRef", "kind"]), text(b, &["roleRef", "name"])))
        })],
        _ => &[],
    }
}

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

fn number(object: &Value, part: &str, field: &str) -> i64 {
    at(object, &[part, field]).and_then(Value::as_i64).unwrap_or(0)
}

fn count(value: &Value) -> usize {
    value.as_object().map(serde_json::Map::len).or_else(|| value.as_array().map(Vec::len)).unwrap_or(0)
}

fn pairs(map: &Value) -> String {
    let pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

fn template_list(workload: &Value, field: &str) -> String {
    let containers = items(workload, &["spec", "template", "spec", "containers"]);
    containers.iter().map(|c| text(c, &[field])).collect::<Vec<_>>().join(",")
}

/// Statuses of what is meant to run for the pod's whole life: its containers and native sidecars.
fn lasting(pod: &Value) -> impl Iterator<Item = &Value> {
    let is_sidecar = |status: &&Value| {
        items(pod, &["spec", "initContainers"])
            .iter()
            .any(|c| c["name"] == status["name"] && c["restartPolicy"] == "Always")
    };
    let sidecars = items(pod, &["status", "initContainerStatuses"]).iter().filter(is_sidecar);
    items(pod, &["status", "containerStatuses"]).iter().chain(sidecars)
}

/// Ready and all.
fn pod_ready(pod: &Value) -> (usize, usize) {
    let sidecars = items(pod, &["spec", "initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always").count();
    let ready = lasting(pod).filter(|status| status["ready"] == true).count();
    (ready, items(pod, &["spec", "containers"]).len() + sidecars)
}

fn pod_status(pod: &Value) -> String {
    if at(pod, &["metadata", "deletionTimestamp"]).is_some() {
        return "Terminating".into();
    }
    let reason = |status: &Value| {
        let state = &status["state"];
        ["waiting", "terminated"]
            .into_iter()
            .map(|kind| text(state, &[kind, "reason"]))
            .find(|r| !r.is_empty())
            .map(ToOwned::to_owned)
    };
    for (i, status) in items(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
        let passed = status["state"]["terminated"]["exitCode"] == 0 || status["started"] == true;
        if !passed && let Some(reason) = reason(status).filter(|r| r != "PodInitializing") {
            return format!("Init:{reason}");
        }
        if !passed {
            return format!("Init:{i}/{}", items(pod, &["spec", "initContainers"]).len());
        }
    }
    let running = items(pod, &["status", "containerStatuses"]).iter().find_map(reason);
    running.unwrap_or_else(|| text(pod, &["status", "phase"]).to_owned())
}

fn pod_restarts(pod: &Value) -> i64 {
    lasting(pod).filter_map(|status| status["restartCount"].as_i64()).sum()
}

fn service_ports(service: &Value) -> String {
    let ports: Vec<String> = items(service, &["spec", "ports"])
        .iter()
        .map(|port| {
            let node = port["nodePort"].as_u64().map(|n| format!(":{n}")).unwrap_or_default();
            format!("{}{node}/{}", port["port"], text(port, &["protocol"]))
        })
        .collect();
    if ports.is_empty() { "<none>".into() } else { ports.join(",") }
}

fn first_three(all: &[String]) -> String {
    match all.len() {
        0 => "<none>".into(),
        n if n > 3 => format!("{} + {} more...", all[..3].join(","), n - 3),
        _ => all.join(","),
    }
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(object, &["subsets"]) {
        for address in items(subset, &["addresses"]) {
            for port in items(subset, &["ports"]) {
                all.push(format!("{}:{}", text(address, &["ip"]), port["port"]));
            }
        }
    }
    first_three(&all)
}

fn slice_ports(slice: &Value) -> String {
    let all: Vec<String> = items(slice, &["ports"]).iter().map(|p| p["port"].to_string()).collect();
    if all.is_empty() { "<unset>".into() } else { first_three(&all) }
}

fn slice_addresses(slice: &Value) -> String {
    let all: Vec<String> = items(slice, &["endpoints"])
        .iter()
        .flat_map(|e| items(e, &["addresses"]))
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect();
    if all.is_empty() { "<unset>".into() } else { first_three(&all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printer_columns_find_their_values() {
        let object = json!({"spec": {"a.b": [1, 2]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(json_path(&object, ".spec['a.b'][1]"), Some(&json!(2)));
        assert_eq!(json_path(&object, ".spec.a\\.b[0]"), Some(&json!(1)));
        assert_eq!(json_path(&object, ".status.conditions[?(@.type==\"Ready\")].status"), Some(&json!("True")));
        assert_eq!(json_path(&object, ".spec.none"), None);
    }

    #[test]
    fn a_pod_that_waits_says_why() {
        let pod = json!({"spec": {"containers": [{}]}, "status": {"phase": "Pending", "containerStatuses": [
            {"ready": false, "restartCount": 2, "state": {"waiting": {"reason": "ErrImagePull"}}}]}});
        assert_eq!((pod_status(&pod).as_str(), pod_ready(&pod), pod_restarts(&pod)), ("ErrImagePull", (0, 1), 2));
    }
}
