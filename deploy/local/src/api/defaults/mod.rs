//! What the server fills in when a client leaves it out.

mod pod;
mod priority;
mod rest;
mod service_account;
mod workload;

use serde_json::Value;

use super::resource::Resource;
use super::server::Server;
use super::status::ApiError;

/// Fills in the defaults of a built-in kind. Custom resources have theirs in the schema.
pub fn fill(resource: &Resource, object: &mut Value) {
    if resource.custom().is_some() {
        return;
    }
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => pod::fill_pod(object),
        ("", "podtemplates") => pod::fill_template(object),
        ("", "services") => rest::service(object),
        ("", "namespaces") => rest::namespace(object),
        ("", "secrets") => rest::secret(object),
        ("", "endpoints") => rest::endpoints(object),
        ("" | "events.k8s.io", "events") => rest::event(object),
        ("", "nodes") => rest::node(object),
        ("", "persistentvolumeclaims") => rest::claim(object),
        ("apps", "deployments") => workload::deployment(object),
        ("apps", "replicasets") => workload::replica_set(object),
        ("apps", "statefulsets") => workload::stateful_set(object),
        ("apps", "daemonsets") => workload::daemon_set(object),
        ("batch", "jobs") => workload::job(object),
        ("batch", "cronjobs") => workload::cron_job(object),
        ("discovery.k8s.io", "endpointslices") => rest::endpoint_slice(object),
        ("admissionregistration.k8s.io", _) => rest::webhooks(object),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => rest::role_binding(object),
        ("networking.k8s.io", "networkpolicies") => rest::network_policy(object),
        ("apiextensions.k8s.io", _) => rest::definition(object),
        _ => {}
    }
}

/// What built-in admission adds to a new object: a pod's priority, its ServiceAccount and the token.
pub fn admit(server: &Server, resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    if !resource.is("", "pods") {
        return Ok(());
    }
    priority::admit(server, resource, object)?;
    service_account::admit(server, resource, object)
}
