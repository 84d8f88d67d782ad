//! Rules of Services and EndpointSlices.

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::api::names::{label_key_problem, label_problem, label_value_problem, subdomain_problem};
use crate::api::object::{items, text};
use crate::api::status::FieldError;

pub fn service(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let kind = text(spec, &["type"]);
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !kinds.contains(&kind) {
        errors.push(FieldError::unsupported("spec.type", &spec["type"], &kinds));
    }
    let ports = items(spec, &["ports"]);
    let headless = text(spec, &["clusterIP"]) == "None";
    if ports.is_empty() && kind != "ExternalName" && !headless {
        errors.push(FieldError::required("spec.ports", ""));
    }
    if kind == "ExternalName" {
        let name = text(spec, &["externalName"]).trim_end_matches('.');
        if name.is_empty() {
            errors.push(FieldError::required("spec.externalName", ""));
        } else if let Some(problem) = subdomain_problem(name) {
            errors.push(FieldError::invalid("spec.externalName", &json!(name), problem));
        }
    }
    let affinities = ["ClientIP", "None"];
    if !affinities.contains(&text(spec, &["sessionAffinity"])) {
        errors.push(FieldError::unsupported("spec.sessionAffinity", &spec["sessionAffinity"], &affinities));
    }
    errors.extend(port_errors(ports));
    for (key, value) in spec["selector"].as_object().into_iter().flatten() {
        if let Some(problem) = label_key_problem(key) {
            errors.push(FieldError::invalid("spec.selector", &json!(key), problem));
        }
        if let Some(problem) = label_value_problem(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid("spec.selector", value, problem));
        }
    }
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    let distribution = text(spec, &["trafficDistribution"]);
    if !distribution.is_empty() && !distributions.contains(&distribution) {
        errors.push(FieldError::unsupported("spec.trafficDistribution", &spec["trafficDistribution"], &distributions));
    }
    if kind != "LoadBalancer" && !items(object, &["status", "loadBalancer", "ingress"]).is_empty() {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden("status.loadBalancer.ingress", detail));
    }
    errors
}

/// The problems of a port's name (RFC 6335).
pub fn port_name_problems(name: &str) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push("must be no more than 15 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens");
    }
    if !name.bytes().any(|b| b.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen");
    }
    problems
}

fn port_errors(ports: &[Value]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        let name = text(port, &["name"]);
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(field("name"), ""));
        } else if !name.is_empty() {
            if let Some(problem) = label_problem(name) {
                errors.push(FieldError::invalid(field("name"), &json!(name), problem));
            }
            if !names.insert(name) {
                errors.push(FieldError::duplicate(field("name"), &json!(name)));
            }
        }
        let range = "must be between 1 and 65535, inclusive";
        if !(1..=65535).contains(&port["port"].as_i64().unwrap_or(0)) {
            errors.push(FieldError::invalid(field("port"), &port["port"], range));
        }
        if port["targetPort"].as_i64().is_some_and(|p| !(1..=65535).contains(&p)) {
            errors.push(FieldError::invalid(field("targetPort"), &port["targetPort"], range));
        }
        for problem in port["targetPort"].as_str().map(port_name_problems).unwrap_or_default() {
            errors.push(FieldError::invalid(field("targetPort"), &port["targetPort"], problem));
        }
        let protocols = ["SCTP", "TCP", "UDP"];
        let protocol = text(port, &["protocol"]);
        if !protocols.contains(&protocol) {
            errors.push(FieldError::unsupported(field("protocol"), &port["protocol"], &protocols));
        }
        if !numbers.insert((port["port"].as_i64(), protocol)) {
            let shown = json!({"port": port["port"], "protocol": protocol});
            errors.push(FieldError::duplicate(format!("spec.ports[{i}]"), &shown));
        }
    }
    errors
}

/// A Service's address can't be exchanged for another.
pub fn changes(service: &Value, old: &Value) -> Vec<FieldError> {
    let (now, before) = (text(service, &["spec", "clusterIP"]), text(old, &["spec", "clusterIP"]));
    let external = [service, old].iter().any(|s| text(s, &["spec", "type"]) == "ExternalName");
    if external || before.is_empty() || now == before {
        return Vec::new();
    }
    let shown = json!([now]);
    vec![FieldError::invalid("spec.clusterIPs[0]", &shown, "may not change once set")]
}

pub fn endpoint_slice(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let kind = text(object, &["addressType"]);
    let kinds = ["FQDN", "IPv4", "IPv6"];
    if kind.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else if !kinds.contains(&kind) {
        errors.push(FieldError::unsupported("addressType", &object["addressType"], &kinds));
    }
    for (i, endpoint) in items(object, &["endpoints"]).iter().enumerate() {
        let addresses = items(endpoint, &["addresses"]);
        if addresses.is_empty() {
            let detail = "must contain at least 1 address";
            errors.push(FieldError::required(format!("endpoints[{i}].addresses"), detail));
        }
        for (j, address) in addresses.iter().enumerate() {
            let parsed: Option<IpAddr> = address.as_str().and_then(|a| a.parse().ok());
            let good = match kind {
                "IPv4" => parsed.is_some_and(|a| a.is_ipv4()),
                "IPv6" => parsed.is_some_and(|a| a.is_ipv6()),
                _ => true,
            };
            if !good {
                let field = format!("endpoints[{i}].addresses[{j}]");
                errors.push(FieldError::invalid(field, address, format!("must be an {kind} address")));
            } else if let Some(problem) = parsed.and_then(special_address) {
                errors.push(FieldError::invalid(format!("endpoints[{i}].addresses[{j}]"), address, problem));
            }
        }
    }
    errors
}

/// Why an address can't be that of an endpoint.
fn special_address(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let link_local_multicast = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.is_multicast() && v6.segments()[0] & 0xf == 2,
    };
    if address.is_unspecified() {
        Some(if address.is_ipv4() { "may not be unspecified (0.0.0.0)" } else { "may not be unspecified (::)" })
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_local_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

pub fn endpoints(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, subset) in items(object, &["subsets"]).iter().enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            for (j, address) in items(subset, &[list]).iter().enumerate() {
                let field = format!("subsets[{i}].{list}[{j}].ip");
                match text(address, &["ip"]).parse::<IpAddr>() {
                    Err(_) => {
                        let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                        errors.push(FieldError::invalid(field, &address["ip"], detail));
                    }
                    Ok(parsed) => errors
                        .extend(special_address(parsed).map(|why| FieldError::invalid(field, &address["ip"], why))),
                }
            }
        }
    }
    errors
}

pub fn ingress(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let rules = items(spec, &["rules"]);
    let default_backend = spec.get("defaultBackend").filter(|backend| !backend.is_null());
    if rules.is_empty() && default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", &json!({}), detail));
    }
    if let Some(backend) = default_backend {
        errors.extend(ingress_backend(backend, "spec.defaultBackend"));
    }
    for (i, rule) in rules.iter().enumerate() {
        let host = text(rule, &["host"]);
        if !host.is_empty()
            && let Some(problem) = subdomain_problem(host.strip_prefix("*.").unwrap_or(host))
        {
            errors.push(FieldError::invalid(format!("spec.rules[{i}].host"), &json!(host), problem));
        }
        for (j, path) in items(rule, &["http", "paths"]).iter().enumerate() {
            let field = format!("spec.rules[{i}].http.paths[{j}]");
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            let kind = text(path, &["pathType"]);
            if kind.is_empty() {
                errors.push(FieldError::required(format!("{field}.pathType"), "pathType must be specified"));
            } else if !kinds.contains(&kind) {
                errors.push(FieldError::unsupported(format!("{field}.pathType"), &path["pathType"], &kinds));
            } else if kind != "ImplementationSpecific" && !text(path, &["path"]).starts_with('/') {
                let detail = "must be an absolute path";
                errors.push(FieldError::invalid(format!("{field}.path"), &json!(text(path, &["path"])), detail));
            }
            errors.extend(ingress_backend(&path["backend"], &format!("{field}.backend")));
        }
    }
    errors
}

fn ingress_backend(backend: &Value, field: &str) -> Vec<FieldError> {
    let part = |name: &str| backend.get(name).filter(|part| !part.is_null());
    let (service, resource) = (part("service"), part("resource"));
    let mut errors = Vec::new();
    match (service, resource) {
        (None, None) => errors.push(FieldError::required(field, "resource or service backend is required")),
        (Some(_), Some(_)) => {
            let detail = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(field, &json!(""), detail));
        }
        (Some(service), None) => {
            if text(service, &["name"]).is_empty() {
                errors.push(FieldError::required(format!("{field}.service.name"), ""));
            }
            let (name, number) = (text(service, &["port", "name"]), service["port"]["number"].as_i64().unwrap_or(0));
            if name.is_empty() == (number == 0) {
                errors.push(FieldError::required(format!("{field}.service.port"), "port name or number is required"));
            }
        }
        (None, Some(_)) => {}
    }
    errors
}
