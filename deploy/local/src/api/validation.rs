//! What objects must look like to be stored.

use serde_json::{Value, json};

use super::crd;
use super::names::{label_key_problem, label_problem, label_value_problem, path_segment_problem, subdomain_problem};
use super::object::{at, finalizers, is_terminating, items, name, text};
use super::resource::Resource;
use super::status::{ApiError, FieldError};
use super::writing::Part;

mod container;
mod service;
mod workload;

/// Refuses an object that breaks the rules of its kind.
pub fn check(resource: &Resource, object: &Value, old: Option<&Value>) -> Result<(), ApiError> {
    let mut errors = metadata_errors(resource, object);
    if let Some(custom) = resource.custom() {
        let wrong = crd::validate::validate(&custom.schema, object);
        // Rules may rely on what the schema says.
        if !wrong.iter().any(FieldError::is_blocking) {
            errors.extend(crd::rules::check(&custom.schema, object, old));
        }
        errors.extend(wrong);
    } else {
        errors.extend(kind_errors(resource, object, old));
    }
    refuse(resource, object, &errors)
}

/// Refuses a change that breaks the rules of its kind, or changes what can't be changed.
pub fn check_update(resource: &Resource, part: Part, object: &Value, old: &Value) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    if is_terminating(old) {
        let new: Vec<&str> = finalizers(object).filter(|f| !finalizers(old).any(|o| o == *f)).collect();
        if !new.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                new.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", &detail));
        }
    }
    if part != Part::Status && resource.custom().is_none() {
        errors.extend(immutable_errors(resource, object, old));
    }
    refuse(resource, object, &errors)?;
    check(resource, object, Some(old))
}

fn refuse(resource: &Resource, object: &Value, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(resource, name(object), errors)) }
}

fn metadata_errors(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let object_name = name(object);
    let prefix = text(object, &["metadata", "generateName"]);
    // What follows the prefix is good, whatever it is.
    if !prefix.is_empty()
        && let Some(problem) = name_problem(resource, &format!("{prefix}x"))
    {
        errors.push(FieldError::invalid("metadata.generateName", &json!(prefix), problem));
    }
    if object_name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else if let Some(problem) = name_problem(resource, object_name) {
        errors.push(FieldError::invalid("metadata.name", &json!(object_name), problem));
    }
    for (key, value) in at(object, &["metadata", "labels"]).and_then(Value::as_object).into_iter().flatten() {
        if let Some(problem) = label_key_problem(key) {
            errors.push(FieldError::invalid("metadata.labels", &json!(key), problem));
        }
        if let Some(problem) = label_value_problem(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid("metadata.labels", value, problem));
        }
    }
    for key in at(object, &["metadata", "annotations"]).and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k)
    {
        if let Some(problem) = label_key_problem(&key.to_lowercase()) {
            errors.push(FieldError::invalid("metadata.annotations", &json!(key), problem));
        }
    }
    for (i, finalizer) in finalizers(object).enumerate() {
        let standard = ["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer);
        if !standard && (!finalizer.contains('/') || label_key_problem(finalizer).is_some()) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), &json!(finalizer), detail));
        }
    }
    let owners = items(object, &["metadata", "ownerReferences"]);
    if owners.iter().filter(|owner| owner["controller"] == true).count() > 1 {
        let detail = "Only one reference can have Controller set to true";
        errors.push(FieldError::invalid("metadata.ownerReferences", &object["metadata"]["ownerReferences"], detail));
    }
    for owner in owners {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &[field]).is_empty() {
                let field = format!("metadata.ownerReferences.{field}");
                errors.push(FieldError::invalid(field, &json!(""), "must not be empty"));
            }
        }
    }
    errors
}

fn name_problem(resource: &Resource, object_name: &str) -> Option<String> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "namespaces") if object_name.contains('.') => Some("must not contain dots".into()),
        ("", "namespaces" | "services") => label_problem(object_name),
        ("rbac.authorization.k8s.io", _) => path_segment_problem(object_name),
        _ => subdomain_problem(object_name),
    }
}

fn kind_errors(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") if old.is_none() => workload::pod_spec(&object["spec"], "spec", true),
        ("", "services") => service::service(object),
        ("", "configmaps") => config_map(object),
        ("", "secrets") => secret(object),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => workload::workload(object),
        ("batch", "jobs") if old.is_none() => workload::job(object),
        ("discovery.k8s.io", "endpointslices") => service::endpoint_slice(object),
        ("", "endpoints") => service::endpoints(object),
        ("networking.k8s.io", "ingresses") => service::ingress(object),
        ("coordination.k8s.io", "leases") => lease(object),
        ("apiextensions.k8s.io", _) => definition(object),
        ("admissionregistration.k8s.io", _) => webhooks(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => role_binding(object),
        _ => Vec::new(),
    }
}

fn immutable_errors(resource: &Resource, object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut same = |path: &[&str], detail: &str| {
        let (now, before) = (at(object, path).unwrap_or(&Value::Null), at(old, path).unwrap_or(&Value::Null));
        if now != before {
            errors.push(FieldError::invalid(path.join("."), now, detail));
        }
    };
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("apps", "deployments" | "replicasets" | "daemonsets") => same(&["spec", "selector"], "field is immutable"),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            same(&["roleRef"], "cannot change roleRef")
        }
        ("", "secrets") => same(&["type"], "field is immutable"),
        ("apiextensions.k8s.io", _) => {
            same(&["spec", "group"], "field is immutable");
            same(&["spec", "scope"], "field is immutable");
            same(&["spec", "names", "plural"], "field is immutable");
            same(&["spec", "names", "kind"], "field is immutable");
        }
        ("discovery.k8s.io", "endpointslices") => same(&["addressType"], "field is immutable"),
        ("", "pods") => errors.extend(workload::pod_changes(object, old)),
        ("apps", "statefulsets") => errors.extend(workload::stateful_set_changes(object, old)),
        ("", "services") => errors.extend(service::changes(object, old)),
        _ => {}
    }
    if matches!(resource.plural.as_str(), "configmaps" | "secrets") && old["immutable"] == true {
        for field in ["data", "binaryData", "immutable"] {
            if object.get(field) != old.get(field) {
                errors.push(FieldError::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
    errors
}

fn config_key_problem(key: &str) -> Option<&'static str> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match key {
        "." => Some("must not be '.'"),
        ".." => Some("must not be '..'"),
        _ if key.is_empty() || key.len() > 253 || !key.bytes().all(good) => Some(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        _ => None,
    }
}

/// The most that the values of a ConfigMap or a Secret may weigh, in bytes.
const LARGEST_DATA: usize = 1024 * 1024;

fn data_errors(object: &Value, fields: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for field in fields {
        for (key, value) in object.get(*field).and_then(Value::as_object).into_iter().flatten() {
            size += value.as_str().map_or(0, str::len);
            if let Some(problem) = config_key_problem(key) {
                errors.push(FieldError::invalid(format!("{field}[{key}]"), &json!(key), problem));
            }
        }
    }
    if size > LARGEST_DATA {
        errors.push(FieldError::too_long("", format!("may not be more than {LARGEST_DATA} bytes")));
    }
    errors
}

fn config_map(object: &Value) -> Vec<FieldError> {
    data_errors(object, &["data", "binaryData"])
}

fn secret(object: &Value) -> Vec<FieldError> {
    let mut errors = data_errors(object, &["data"]);
    let needed: &[&str] = match text(object, &["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        _ => &[],
    };
    for key in needed {
        if at(object, &["data", key]).is_none() {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    errors
}

fn definition(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let wanted = format!("{}.{}", text(spec, &["names", "plural"]), text(spec, &["group"]));
    if name(object) != wanted {
        errors.push(FieldError::invalid(
            "metadata.name",
            &json!(name(object)),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if !matches!(text(spec, &["scope"]), "Cluster" | "Namespaced") {
        errors.push(FieldError::unsupported("spec.scope", &spec["scope"], &["Cluster", "Namespaced"]));
    }
    for field in ["plural", "kind"] {
        if text(spec, &["names", field]).is_empty() {
            errors.push(FieldError::required(format!("spec.names.{field}"), ""));
        }
    }
    let versions = items(spec, &["versions"]);
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        errors.push(FieldError::invalid(
            "spec.versions",
            &spec["versions"],
            "must have exactly one version marked as storage version",
        ));
    }
    for (i, version) in versions.iter().enumerate() {
        let schema = at(version, &["schema", "openAPIV3Schema"]);
        if schema.is_none_or(|s| s.as_object().is_none_or(serde_json::Map::is_empty)) {
            errors.push(FieldError::required(
                format!("spec.versions[{i}].schema.openAPIV3Schema"),
                "schemas are required",
            ));
        } else if schema.is_some_and(|s| s["type"] != "object") {
            let field = format!("spec.versions[{i}].schema.openAPIV3Schema.type");
            errors.push(FieldError::invalid(
                field,
                &schema.map_or(Value::Null, |s| s["type"].clone()),
                "must be object at the root",
            ));
        }
        if let Some(schema) = schema {
            crd::rules::check_schema(schema, &format!("spec.versions[{i}].schema.openAPIV3Schema"), &mut errors);
        }
    }
    if text(spec, &["conversion", "strategy"]) == "Webhook" {
        let detail = "this API server converts between versions by their apiVersion only: use strategy None";
        errors.push(FieldError::invalid("spec.conversion.strategy", &json!("Webhook"), detail));
    }
    errors
}

fn webhooks(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (i, webhook) in items(object, &["webhooks"]).iter().enumerate() {
        let field = |name: &str| format!("webhooks[{i}].{name}");
        let own_name = text(webhook, &["name"]);
        if own_name.split('.').count() < 3 || subdomain_problem(own_name).is_some() {
            let detail = "should be a domain with at least three segments separated by dots";
            errors.push(FieldError::invalid(field("name"), &json!(own_name), detail));
        }
        let config = &webhook["clientConfig"];
        let (url, service) = (text(config, &["url"]), config.get("service").is_some_and(|s| !s.is_null()));
        if url.is_empty() != service {
            errors.push(FieldError::required(field("clientConfig"), "exactly one of url or service is required"));
        }
        if !url.is_empty() && !url.starts_with("https://") {
            let detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]";
            errors.push(FieldError::invalid(field("clientConfig.url"), &json!(url), detail));
        }
        let reviews = items(webhook, &["admissionReviewVersions"]);
        if reviews.is_empty() {
            let detail = "must specify one of v1, v1beta1";
            errors.push(FieldError::required(field("admissionReviewVersions"), detail));
        } else if !reviews.iter().any(|v| v == "v1") {
            let detail = "must include at least one of v1, v1beta1";
            errors.push(FieldError::invalid(
                field("admissionReviewVersions"),
                &webhook["admissionReviewVersions"],
                detail,
            ));
        }
        let effects = text(webhook, &["sideEffects"]);
        if effects.is_empty() {
            let detail = "must specify one of None, NoneOnDryRun";
            errors.push(FieldError::required(field("sideEffects"), detail));
        } else if !matches!(effects, "None" | "NoneOnDryRun") {
            errors.push(FieldError::unsupported(
                field("sideEffects"),
                &webhook["sideEffects"],
                &["None", "NoneOnDryRun"],
            ));
        }
        if !matches!(text(webhook, &["failurePolicy"]), "Fail" | "Ignore") {
            errors.push(FieldError::unsupported(
                field("failurePolicy"),
                &webhook["failurePolicy"],
                &["Fail", "Ignore"],
            ));
        }
        let timeout = webhook["timeoutSeconds"].as_i64().unwrap_or(10);
        if !(1..=30).contains(&timeout) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.push(FieldError::invalid(field("timeoutSeconds"), &json!(timeout), detail));
        }
        for (i, rule) in items(webhook, &["rules"]).iter().enumerate() {
            for (j, operation) in items(rule, &["operations"]).iter().enumerate() {
                let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
                if !operation.as_str().is_some_and(|operation| known.contains(&operation)) {
                    let place = field(&format!("rules[{i}].operations[{j}]"));
                    errors.push(FieldError::unsupported(place, operation, &known));
                }
            }
        }
        for (i, condition) in items(webhook, &["matchConditions"]).iter().enumerate() {
            let source = text(condition, &["expression"]);
            if let Err(error) = super::cel::Expression::parse(source) {
                let place = field(&format!("matchConditions[{i}].expression"));
                errors.push(FieldError::invalid(place, &json!(source), error.to_string()));
            }
        }
    }
    errors
}

fn lease(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|n| n <= 0) {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            &spec["leaseDurationSeconds"],
            "must be greater than 0",
        ));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|n| n < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.leaseTransitions", &spec["leaseTransitions"], detail));
    }
    errors
}

fn role_binding(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(object, &["roleRef", "name"]).is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    errors
}
