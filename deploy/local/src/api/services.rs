//! Addresses and node ports of Services.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::{MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::families::{self, Pool};
use super::object::{as_map, default, items, items_mut, map, name, text};
use super::resource::Resource;
use super::server::Server;
use super::status::{ApiError, FieldError};

/// The address of `default/kubernetes`.
pub const KUBERNETES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Kept for the cluster's name server.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30000..=32767;

/// Held from the choice of an address until the Service is stored, so no address is given twice. Nothing for other kinds.
pub fn lock_for<'a>(server: &'a Server, resource: &Resource) -> Option<MutexGuard<'a, ()>> {
    resource.is("", "services").then(|| server.addresses.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A changed Service that names no address keeps the one it has.
pub fn keep_addresses(resource: &Resource, old: &Value, service: &mut Value) {
    if !resource.is("", "services")
        || service["spec"]["type"] == "ExternalName"
        || old["spec"]["type"] == "ExternalName"
    {
        return;
    }
    let spec = map(service, "spec");
    for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if let Some(kept) = old["spec"].get(key) {
            let empty = spec.get(key).is_none_or(|v| v.is_null() || *v == json!("") || *v == json!([]));
            if empty {
                spec.insert(key.into(), kept.clone());
            }
        }
    }
    if !uses_node_ports(service) {
        return;
    }
    let before = old["spec"]["ports"].clone();
    for port in items_mut(&mut service["spec"], "ports") {
        let same = |other: &&Value| other["port"] == port["port"] && other["protocol"] == port["protocol"];
        let kept = before.as_array().into_iter().flatten().find(same).and_then(|p| p.get("nodePort")).cloned();
        if let Some(kept) = kept {
            default(as_map(port), "nodePort", || kept);
        }
    }
}

fn uses_node_ports(service: &Value) -> bool {
    matches!(text(service, &["spec", "type"]), "NodePort" | "LoadBalancer")
}

/// A Service with the addresses and node ports it would get, for the webhooks that judge it. Nothing is taken yet.
pub fn proposed(
    server: &Server,
    resource: &Resource,
    service: &Value,
    old: Option<&Value>,
) -> Result<Option<Value>, ApiError> {
    if !resource.is("", "services") {
        return Ok(None);
    }
    let mut proposed = service.clone();
    allocate(server, resource, &mut proposed, old, false)?;
    Ok(Some(proposed))
}

/// Gives a Service what was proposed, or something else if somebody took that meanwhile.
pub fn settle(
    server: &Server,
    resource: &Resource,
    service: &mut Value,
    proposed: Option<Value>,
    old: Option<&Value>,
    dry: bool,
) -> Result<(), ApiError> {
    let Some(mut proposed) = proposed.filter(|_| !dry) else {
        return allocate(server, resource, service, old, dry);
    };
    if allocate(server, resource, &mut proposed, old, dry).is_ok() {
        *service = proposed;
        return Ok(());
    }
    allocate(server, resource, service, old, dry)
}

/// Gives a Service its address and node ports. With `dry` the address shown is the first of the range, as nothing is taken.
fn allocate(
    server: &Server,
    resource: &Resource,
    service: &mut Value,
    old: Option<&Value>,
    dry: bool,
) -> Result<(), ApiError> {
    if !resource.is("", "services") {
        return Ok(());
    }
    let me = (super::object::namespace(service).to_owned(), name(service).to_owned());
    let others: Vec<_> = server
        .all("", "services", None)
        .into_iter()
        .filter(|o| (super::object::namespace(&o.value), name(&o.value)) != (me.0.as_str(), me.1.as_str()))
        .collect();
    let errors = match text(service, &["spec", "type"]) {
        "ExternalName" => {
            let spec = map(service, "spec");
            for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(key);
            }
            Vec::new()
        }
        _ => {
            let used = others.iter().flat_map(|other| addresses(&other.value)).collect();
            let before = old.into_iter().flat_map(addresses).collect();
            families::give(service, &Pool { dual: server.dual_stack, used, before, dry })
        }
    };
    refuse(resource, service, errors)?;
    let ports: HashSet<u64> = others
        .iter()
        .flat_map(|o| items(&o.value, &["spec", "ports"]))
        .filter_map(|port| port["nodePort"].as_u64())
        .collect();
    let errors = give_node_ports(service, &ports);
    refuse(resource, service, errors)
}

/// Refuses a Service that asks for what this cluster does not have.
pub fn check_wishes(server: &Server, resource: &Resource, service: &Value) -> Result<(), ApiError> {
    if !resource.is("", "services") {
        return Ok(());
    }
    refuse(resource, service, families::check_wishes(service, server.dual_stack))
}

fn addresses(service: &Value) -> impl Iterator<Item = &str> {
    items(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str)
}

fn refuse(resource: &Resource, service: &Value, errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(resource, name(service), &errors)) }
}

fn give_node_ports(service: &mut Value, used: &HashSet<u64>) -> Vec<FieldError> {
    if !uses_node_ports(service) {
        for port in items_mut(&mut service["spec"], "ports") {
            as_map(port).remove("nodePort");
        }
        return Vec::new();
    }
    if service["spec"]["allocateLoadBalancerNodePorts"] == false {
        return Vec::new();
    }
    let mut taken = used.clone();
    let mut errors = Vec::new();
    for (i, port) in items_mut(&mut service["spec"], "ports").enumerate() {
        let field = format!("spec.ports[{i}].nodePort");
        match port["nodePort"].as_u64().filter(|p| *p != 0) {
            Some(wanted) if !NODE_PORTS.contains(&wanted) => {
                let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                errors.push(FieldError::invalid(field, &json!(wanted), detail));
            }
            Some(wanted) if used.contains(&wanted) => {
                errors.push(FieldError::invalid(field, &json!(wanted), "provided port is already allocated"));
            }
            Some(wanted) => {
                taken.insert(wanted);
            }
            None => {
                if let Some(free) = NODE_PORTS.clone().find(|p| !taken.contains(p)) {
                    as_map(port).insert("nodePort".into(), json!(free));
                    taken.insert(free);
                } else {
                    errors.push(FieldError::forbidden(field, "the range of node ports is full"));
                }
            }
        }
    }
    errors
}
