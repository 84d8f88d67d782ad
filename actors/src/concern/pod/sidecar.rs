//! The sidecar container: a native sidecar, that is an init container that keeps running. Kubernetes starts it before all other
//! containers and ends it after them.

use std::collections::BTreeSet;

use fsm_api::names;
use serde_json::{Value, json};

use super::annotations::{Annotations, Invalid};
use super::resources;
use crate::catalog::Mesh;

/// The container's name.
pub const NAME: &str = crate::catalog::view::SIDECAR_CONTAINER;
/// The image if nobody names one.
const DEFAULT_IMAGE: &str = "flomesh/fsm-proxy:latest";
/// Where the ServiceAccount token is, with the controller as its audience.
const TOKEN_DIRECTORY: &str = "/var/run/secrets/fsm";
/// What outlives a restart of the container.
const STATE_DIRECTORY: &str = "/var/lib/fsm-proxy";
const TOKEN_VOLUME: &str = "fsm-token";
const STATE_VOLUME: &str = "fsm-proxy-state";

/// Annotations that have Prometheus scrape the proxy.
pub const SCRAPING: [(&str, &str); 3] =
    [("prometheus.io/scrape", "true"), ("prometheus.io/port", "15010"), ("prometheus.io/path", "/stats/prometheus")];

/// The container; `relays` are the ports of the probe relays in use.
pub fn container(
    mesh: &Mesh,
    pod: &Value,
    annotations: &Annotations,
    relays: &BTreeSet<u16>,
) -> Result<Value, Invalid> {
    let mut container = json!({
        "name": NAME,
        "image": image(mesh, annotations),
        "args": ["sidecar"],
        "restartPolicy": "Always",
        "env": environment(mesh, pod),
        "ports": ports(relays),
        // Ready when it has a certificate and a configuration, and when the pod is intercepted: nobody listens on this port,
        // the probe is answered only if it is captured. Then the next containers start.
        "startupProbe": {
            "httpGet": {"path": "/fsm-ready", "port": 15905},
            "periodSeconds": 1,
            "timeoutSeconds": 1,
            "failureThreshold": 120,
        },
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": TOKEN_VOLUME, "mountPath": TOKEN_DIRECTORY, "readOnly": true},
            {"name": STATE_VOLUME, "mountPath": STATE_DIRECTORY},
        ],
    });
    let requirements = resources::requirements(annotations, &mesh.config.sidecar.resources)?;
    if requirements != json!({}) {
        container["resources"] = requirements;
    }
    Ok(container)
}

/// The pod's volumes for it.
pub fn volumes() -> [Value; 2] {
    let token = json!({"serviceAccountToken": {"audience": fsm_proxy_config::ca::TOKEN_AUDIENCE, "expirationSeconds": 3600, "path": "token"}});
    [json!({"name": TOKEN_VOLUME, "projected": {"sources": [token]}}), json!({"name": STATE_VOLUME, "emptyDir": {}})]
}

fn image<'a>(mesh: &'a Mesh, annotations: &'a Annotations) -> &'a str {
    let candidates = [
        annotations.get(names::SIDECAR_IMAGE).unwrap_or_default(),
        &mesh.config.sidecar.sidecar_image,
        &mesh.started.sidecar_image,
    ];
    candidates.into_iter().find(|image| !image.is_empty()).unwrap_or(DEFAULT_IMAGE)
}

fn environment(mesh: &Mesh, pod: &Value) -> Vec<Value> {
    let started = &mesh.started;
    let value = |name: &str, value: &str| json!({"name": name, "value": value});
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let controller = format!("fsm-controller.{}.svc.cluster.local:15128", started.mesh_namespace);
    let mut environment = vec![
        value("MESH_NAME", &started.mesh_name),
        field("POD_UID", "metadata.uid"),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("NODE_NAME", "spec.nodeName"),
        value("FSM_CONTROLLER", &controller),
        value("FSM_TRUST_DOMAIN", &started.trust_domain),
        value("FSM_TRUST_ANCHORS", &started.trust_bundle_pem),
        value("FSM_TOKEN_PATH", &format!("{TOKEN_DIRECTORY}/token")),
        value("FSM_STATE_DIR", STATE_DIRECTORY),
        value("FSM_LOG", log_level(&mesh.config.sidecar.log_level)),
    ];
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    if let Some(owner) = owners.into_iter().find(|owner| owner["controller"] == true) {
        for (name, member) in [("POD_CONTROLLER_KIND", "kind"), ("POD_CONTROLLER_NAME", "name")] {
            environment.push(value(name, owner[member].as_str().unwrap_or_default()));
        }
    }
    if !started.otlp_endpoint.is_empty() {
        environment.push(value("OTEL_EXPORTER_OTLP_ENDPOINT", &started.otlp_endpoint));
    }
    environment
}

/// The proxy's level for one of MeshConfig's.
fn log_level(level: &str) -> &str {
    match level {
        "fatal" | "panic" => "error",
        "disabled" => "off",
        level => level,
    }
}

fn ports(relays: &BTreeSet<u16>) -> Vec<Value> {
    let always = [(15003, "proxy-inbound"), (15008, "proxy-mesh"), (15010, "proxy-metrics")];
    let named =
        [(15901, "liveness-port"), (15902, "readiness-port"), (15903, "startup-port"), (15904, "tcp-probe-port")];
    let used = named.into_iter().filter(|(port, _)| relays.contains(port));
    always.into_iter().chain(used).map(|(port, name)| json!({"name": name, "containerPort": port})).collect()
}
