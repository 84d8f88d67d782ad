//! Probes go through the sidecar: the kubelet has no certificate, so it could not reach the application.
//!
//! | probe | becomes |
//! | --- | --- |
//! | httpGet, HTTP | httpGet on the sidecar's relay of that type of probe, with headers that say where it was to go |
//! | httpGet, HTTPS; tcpSocket | httpGet on the sidecar's TCP relay, which only connects |
//! | grpc, exec | unchanged |

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::annotations::Invalid;

/// Each type of probe with the port of its relay.
const TYPES: [(&str, u16); 3] = [("livenessProbe", 15901), ("readinessProbe", 15902), ("startupProbe", 15903)];
/// The relay that only connects.
const TCP_RELAY: u16 = 15904;
/// The path of all relays.
const PATH: &str = "/fsm-healthcheck";

/// Rewrites all probes of a pod; gives the ports of the relays that they use.
pub fn rewrite(pod: &mut Value) -> Result<BTreeSet<u16>, Invalid> {
    let mut relays = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers.filter(|container| container["name"] != super::sidecar::NAME) {
            let ports = container["ports"].clone();
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (probe_type, relay) in TYPES {
                let Some(probe) = container.get_mut(probe_type) else { continue };
                let place = format!("container {name}: {probe_type}");
                if let Some(used) = rewrite_probe(probe, relay, &ports, &place)? {
                    relays.insert(used);
                }
            }
        }
    }
    Ok(relays)
}

fn rewrite_probe(probe: &mut Value, relay: u16, ports: &Value, place: &str) -> Result<Option<u16>, Invalid> {
    if let Some(target) = probe.get("httpGet").filter(|target| target.is_object()) {
        // With a host it isn't this pod's application that is asked.
        if target["host"].as_str().is_some_and(|host| !host.is_empty()) {
            return Ok(None);
        }
        // A copy of an injected pod has been here before.
        if target["path"] == PATH {
            return Ok(target["port"].as_u64().and_then(|port| u16::try_from(port).ok()));
        }
        let port = port(&target["port"], ports, place)?;
        let mut headers = target["httpHeaders"].as_array().cloned().unwrap_or_default();
        let https = target["scheme"].as_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        if https {
            probe["httpGet"] = tcp(port);
            return Ok(Some(TCP_RELAY));
        }
        let path = target["path"].as_str().filter(|path| !path.is_empty()).unwrap_or("/");
        headers.push(json!({"name": "Original-Http-Port", "value": port.to_string()}));
        headers.push(json!({"name": "Original-Http-Path", "value": path}));
        probe["httpGet"] = json!({"path": PATH, "port": relay, "httpHeaders": headers});
        return Ok(Some(relay));
    }
    if let Some(target) = probe.get("tcpSocket").filter(|target| target.is_object()) {
        if target["host"].as_str().is_some_and(|host| !host.is_empty()) {
            return Ok(None);
        }
        let port = port(&target["port"], ports, place)?;
        if let Some(probe) = probe.as_object_mut() {
            probe.remove("tcpSocket");
        }
        probe["httpGet"] = tcp(port);
        return Ok(Some(TCP_RELAY));
    }
    Ok(None)
}

fn tcp(port: u16) -> Value {
    let headers = json!([{"name": "Original-Tcp-Port", "value": port.to_string()}]);
    json!({"path": PATH, "port": TCP_RELAY, "httpHeaders": headers})
}

/// The number of a port that is given by number or by name.
fn port(port: &Value, ports: &Value, place: &str) -> Result<u16, Invalid> {
    let number = match port {
        Value::String(name) => name.parse().ok().or_else(|| {
            let named = ports.as_array()?.iter().find(|port| port["name"] == name.as_str())?;
            named["containerPort"].as_u64()
        }),
        number => number.as_u64(),
    };
    number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0).ok_or_else(|| {
        Invalid(format!(
            "{place}: {port} is neither a port number nor the name of one of the container's ports: name one of them"
        ))
    })
}
