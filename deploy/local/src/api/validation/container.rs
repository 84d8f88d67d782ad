//! Rules of a pod's containers and volumes.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::service::port_name_problems;
use crate::api::names::label_problem;
use crate::api::object::{items, text};
use crate::api::status::FieldError;

const PORTS: std::ops::RangeInclusive<i64> = 1..=65535;
const RANGE: &str = "must be between 1 and 65535, inclusive";

/// All containers of a pod's spec, at a path of an object. Images may be missing only if `images` is false.
pub fn containers(spec: &Value, path: &str, images: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes: HashSet<&str> = items(spec, &["volumes"]).iter().map(|v| text(v, &["name"])).collect();
    let mut seen = HashSet::new();
    for list in ["containers", "initContainers"] {
        for (i, container) in items(spec, &[list]).iter().enumerate() {
            let path = format!("{path}.{list}[{i}]");
            let name = text(container, &["name"]);
            if name.is_empty() {
                errors.push(FieldError::required(format!("{path}.name"), ""));
            } else if let Some(problem) = label_problem(name) {
                errors.push(FieldError::invalid(format!("{path}.name"), &json!(name), problem));
            } else if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), &json!(name)));
            }
            if images && text(container, &["image"]).is_empty() {
                errors.push(FieldError::required(format!("{path}.image"), ""));
            }
            errors.extend(mounts(container, &path, &volumes));
            errors.extend(ports(container, &path));
            errors.extend(environment(container, &path));
            errors.extend(probes(container, &path, list == "initContainers"));
        }
    }
    errors
}

/// The volumes of a pod's spec.
pub fn volumes(spec: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    for (i, volume) in items(spec, &["volumes"]).iter().enumerate() {
        let (field, name) = (format!("{path}.volumes[{i}]"), text(volume, &["name"]));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else if let Some(problem) = label_problem(name) {
            errors.push(FieldError::invalid(format!("{field}.name"), &json!(name), problem));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
        }
        let sources = volume.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
        errors.extend(sources.skip(1).map(|(key, _)| {
            FieldError::forbidden(format!("{field}.{key}"), "may not specify more than 1 volume type")
        }));
    }
    errors
}

fn mounts(container: &Value, path: &str, volumes: &HashSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut places = HashSet::new();
    for (i, mount) in items(container, &["volumeMounts"]).iter().enumerate() {
        let (field, volume, place) =
            (format!("{path}.volumeMounts[{i}]"), text(mount, &["name"]), text(mount, &["mountPath"]));
        if !volumes.contains(volume) {
            errors.push(FieldError::missing(format!("{field}.name"), &json!(volume)));
        }
        if place.is_empty() {
            errors.push(FieldError::required(format!("{field}.mountPath"), ""));
        } else if !places.insert(place) {
            errors.push(FieldError::invalid(format!("{field}.mountPath"), &json!(place), "must be unique"));
        }
    }
    errors
}

fn ports(container: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    for (i, port) in items(container, &["ports"]).iter().enumerate() {
        let field = |name: &str| format!("{path}.ports[{i}].{name}");
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.push(FieldError::required(field("containerPort"), "")),
            number if !PORTS.contains(&number) => {
                errors.push(FieldError::invalid(field("containerPort"), &port["containerPort"], RANGE));
            }
            _ => {}
        }
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let problems = port_name_problems(name).into_iter();
            errors.extend(problems.map(|problem| FieldError::invalid(field("name"), &json!(name), problem)));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(field("name"), &json!(name)));
            }
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&text(port, &["protocol"])) {
            errors.push(FieldError::unsupported(field("protocol"), &port["protocol"], &protocols));
        }
    }
    errors
}

fn environment(container: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, variable) in items(container, &["env"]).iter().enumerate() {
        let field = |name: &str| format!("{path}.env[{i}].{name}");
        if text(variable, &["name"]).is_empty() {
            errors.push(FieldError::required(field("name"), ""));
        }
        if let Some(source) = variable.get("valueFrom").and_then(Value::as_object) {
            if !text(variable, &["value"]).is_empty() {
                let detail = "may not be specified when `value` is not empty";
                errors.push(FieldError::invalid(field("valueFrom"), &json!(""), detail));
            }
            if source.len() != 1 {
                let detail = if source.is_empty() {
                    "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
                } else {
                    "may not have more than one field specified at a time"
                };
                errors.push(FieldError::invalid(field("valueFrom"), &json!(""), detail));
            }
        }
    }
    errors
}

fn probes(container: &Value, path: &str, init: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let sidecar = text(container, &["restartPolicy"]) == "Always";
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get(kind).filter(|probe| !probe.is_null()) else { continue };
        let field = format!("{path}.{kind}");
        if init && !sidecar {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(field, detail));
            continue;
        }
        let handlers: Vec<&str> = ["exec", "grpc", "httpGet", "tcpSocket"]
            .into_iter()
            .filter(|handler| probe.get(handler).is_some())
            .collect();
        if handlers.is_empty() {
            errors.push(FieldError::required(field.clone(), "must specify a handler type"));
        }
        for handler in handlers.iter().skip(1) {
            errors
                .push(FieldError::forbidden(format!("{field}.{handler}"), "may not specify more than 1 handler type"));
        }
        for handler in handlers.iter().filter(|handler| **handler != "exec") {
            let port = &probe[*handler]["port"];
            let place = format!("{field}.{handler}.port");
            if let Some(name) = port.as_str() {
                let problems = port_name_problems(name).into_iter();
                errors.extend(problems.map(|problem| FieldError::invalid(place.clone(), port, problem)));
            } else if !port.as_i64().is_some_and(|number| PORTS.contains(&number)) {
                errors.push(FieldError::invalid(place, port, RANGE));
            }
        }
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
        {
            if probe[number].as_i64().is_some_and(|value| value < 0) {
                let detail = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(format!("{field}.{number}"), &probe[number], detail));
            }
        }
        let once = kind != "readinessProbe" && probe["successThreshold"].as_i64().is_some_and(|count| count != 1);
        if once {
            let place = format!("{field}.successThreshold");
            errors.push(FieldError::invalid(place, &probe["successThreshold"], "must be 1"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(container: Value) -> Vec<String> {
        let mut container = container;
        container["name"] = json!("c");
        container["image"] = json!("i");
        containers(&json!({"containers": [container], "volumes": [{"name": "v"}]}), "spec", true)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_an_injector_could_get_wrong_is_refused_with_its_field() {
        let port = |port: Value| json!({"ports": [port]});
        assert_eq!(refused(port(json!({"containerPort": 1, "protocol": "TCP"}))), Vec::<String>::new());
        assert_eq!(
            refused(port(json!({"containerPort": 0, "protocol": "TCP"}))),
            ["spec.containers[0].ports[0].containerPort: Required value"]
        );
        assert_eq!(
            refused(port(json!({"containerPort": 1, "protocol": "TCP", "name": "proxy-metrics-port"}))),
            [
                "spec.containers[0].ports[0].name: Invalid value: \"proxy-metrics-port\": must be no more than 15 characters"
            ]
        );
        let twice = json!({"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]});
        assert_eq!(
            refused(twice),
            ["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique"]
        );
        assert_eq!(
            refused(json!({"readinessProbe": {"periodSeconds": 1}})),
            ["spec.containers[0].readinessProbe: Required value: must specify a handler type"]
        );
        assert_eq!(
            refused(json!({"livenessProbe": {"httpGet": {"port": 70000}}})),
            [
                "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 70000: must be between 1 and 65535, inclusive"
            ]
        );
        let both =
            json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
        assert_eq!(refused(both).len(), 1);
    }

    #[test]
    fn a_volume_has_one_source_and_a_name_of_its_own() {
        let spec = json!({"volumes": [{"name": "v", "emptyDir": {}, "secret": {}}, {"name": "v", "emptyDir": {}}]});
        let errors: Vec<String> = volumes(&spec, "spec").iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[1].name: Duplicate value: \"v\""
            ]
        );
    }
}
