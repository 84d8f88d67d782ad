//! Defaults of services, namespaces, endpoints, webhooks and other small kinds.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api::object::{as_map, default, items_mut, map, metadata, name, text};

pub fn service(object: &mut Value) {
    let spec = map(object, "spec");
    default(spec, "type", || json!("ClusterIP"));
    default(spec, "sessionAffinity", || json!("None"));
    if spec["sessionAffinity"] == "ClientIP" {
        default(spec, "sessionAffinityConfig", || json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if kind != "ExternalName" {
        default(spec, "internalTrafficPolicy", || json!("Cluster"));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
        default(spec, "externalTrafficPolicy", || json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", || json!(true));
    } else {
        spec.remove("allocateLoadBalancerNodePorts");
    }
    if kind == "ExternalName" {
        spec.remove("internalTrafficPolicy");
    }
    if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") && spec.get("externalIPs").is_none() {
        spec.remove("externalTrafficPolicy");
    }
    for port in items_mut(&mut object["spec"], "ports") {
        let number = port["port"].clone();
        let port = as_map(port);
        default(port, "protocol", || json!("TCP"));
        default(port, "targetPort", || number);
        let unset = port.get("targetPort").is_some_and(|p| p == 0 || p == "");
        if unset {
            port.insert("targetPort".into(), port.get("port").cloned().unwrap_or_default());
        }
    }
}

pub fn namespace(object: &mut Value) {
    let own_name = name(object).to_owned();
    default(map(object, "spec"), "finalizers", || json!(["kubernetes"]));
    if !own_name.is_empty() {
        let labels = metadata(object).entry("labels").or_insert_with(|| json!({}));
        as_map(labels).insert("kubernetes.io/metadata.name".into(), json!(own_name));
    }
}

/// `stringData` is written into `data`, and the type is filled in.
pub fn secret(object: &mut Value) {
    default(as_map(object), "type", || json!("Opaque"));
    let Some(Value::Object(texts)) = as_map(object).remove("stringData") else { return };
    let data = map(object, "data");
    for (key, value) in texts {
        data.insert(key, json!(STANDARD.encode(value.as_str().unwrap_or_default())));
    }
}

pub fn endpoints(object: &mut Value) {
    for subset in items_mut(object, "subsets") {
        for port in items_mut(subset, "ports") {
            default(as_map(port), "protocol", || json!("TCP"));
        }
    }
}

pub fn event(object: &mut Value) {
    let fields = as_map(object);
    if fields.get("apiVersion").is_some_and(|version| version == "v1") {
        default(fields, "source", || json!({}));
        default(fields, "reportingComponent", || json!(""));
    } else {
        default(fields, "deprecatedSource", || json!({}));
        default(fields, "reportingController", || json!(""));
    }
    default(fields, "reportingInstance", || json!(""));
}

pub fn endpoint_slice(object: &mut Value) {
    for endpoint in items_mut(object, "endpoints") {
        default(as_map(endpoint), "conditions", || json!({}));
    }
    for port in items_mut(object, "ports") {
        let port = as_map(port);
        default(port, "protocol", || json!("TCP"));
        default(port, "name", || json!(""));
    }
}

pub fn node(object: &mut Value) {
    map(object, "spec");
    let own_name = name(object).to_owned();
    let labels = metadata(object).entry("labels").or_insert_with(|| json!({}));
    default(as_map(labels), "kubernetes.io/hostname", || json!(own_name));
}

pub fn claim(object: &mut Value) {
    default(map(object, "spec"), "volumeMode", || json!("Filesystem"));
    default(map(object, "status"), "phase", || json!("Pending"));
}

pub fn webhooks(object: &mut Value) {
    let mutating = text(object, &["kind"]) == "MutatingWebhookConfiguration";
    for webhook in items_mut(object, "webhooks") {
        let fields = as_map(webhook);
        default(fields, "failurePolicy", || json!("Fail"));
        default(fields, "matchPolicy", || json!("Equivalent"));
        default(fields, "namespaceSelector", || json!({}));
        default(fields, "objectSelector", || json!({}));
        default(fields, "timeoutSeconds", || json!(10));
        if mutating {
            default(fields, "reinvocationPolicy", || json!("Never"));
        }
        if let Some(service) = webhook.pointer_mut("/clientConfig/service") {
            default(as_map(service), "port", || json!(443));
        }
        for rule in items_mut(webhook, "rules") {
            default(as_map(rule), "scope", || json!("*"));
        }
    }
}

pub fn role_binding(object: &mut Value) {
    if let Some(role) = object.get_mut("roleRef") {
        default(as_map(role), "apiGroup", || json!("rbac.authorization.k8s.io"));
    }
    for subject in items_mut(object, "subjects") {
        if subject["kind"] != "ServiceAccount" {
            default(as_map(subject), "apiGroup", || json!("rbac.authorization.k8s.io"));
        }
    }
}

pub fn network_policy(object: &mut Value) {
    let egress = object.pointer("/spec/egress").is_some();
    let spec = map(object, "spec");
    default(spec, "podSelector", || json!({}));
    default(spec, "policyTypes", || if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
    for direction in ["ingress", "egress"] {
        for rule in items_mut(&mut object["spec"], direction) {
            for port in items_mut(rule, "ports") {
                default(as_map(port), "protocol", || json!("TCP"));
            }
        }
    }
}

pub fn definition(object: &mut Value) {
    let spec = map(object, "spec");
    default(spec, "conversion", || json!({"strategy": "None"}));
    if let Some(names) = spec.get_mut("names") {
        let kind = text(names, &["kind"]).to_owned();
        let names = as_map(names);
        if names.get("singular").and_then(Value::as_str).unwrap_or_default().is_empty() {
            names.insert("singular".into(), json!(kind.to_lowercase()));
        }
        if names.get("listKind").and_then(Value::as_str).unwrap_or_default().is_empty() {
            names.insert("listKind".into(), json!(format!("{kind}List")));
        }
    }
}
