//! Which addresses the service network answers on, and who stands behind them. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

/// The label that ties an EndpointSlice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// For each TCP service address that has ready endpoints: the endpoints, sorted.
pub fn backends(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> BTreeMap<SocketAddr, Vec<SocketAddr>> {
    let mut by_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(name) = slice.labels().get(SERVICE_NAME) {
            by_service.entry((slice.namespace().unwrap_or_default(), name.clone())).or_default().push(slice);
        }
    }
    let mut wanted = BTreeMap::new();
    for service in services {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        let (Some(spec), Some(slices)) = (&service.spec, by_service.get(&key)) else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()) else { continue };
        for port in spec.ports.iter().flatten().filter(|port| is_tcp(port.protocol.as_deref())) {
            let endpoints = endpoints_of(slices, port);
            if let (false, Ok(number)) = (endpoints.is_empty(), u16::try_from(port.port)) {
                wanted.insert(SocketAddr::new(ip, number), endpoints);
            }
        }
    }
    wanted
}

fn endpoints_of(slices: &[&EndpointSlice], port: &ServicePort) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for slice in slices {
        // A slice's port carries the service port's name; both may be unnamed.
        let wanted = port.name.as_deref().unwrap_or_default();
        let of_port = slice
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref().unwrap_or_default() == wanted && is_tcp(p.protocol.as_deref()));
        let Some(number) = of_port.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
        let ready = slice.endpoints.iter().flatten().filter(|e| is_ready(e));
        let ips = ready.flat_map(|e| &e.addresses).filter_map(|ip| ip.parse::<IpAddr>().ok());
        found.extend(ips.map(|ip| SocketAddr::new(ip, number)));
    }
    found.sort();
    found.dedup();
    found
}

/// Unset means ready (EndpointSlice API, `conditions.ready`).
pub fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|p| p == "TCP")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(ip: &str) -> Arc<Service> {
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": ip, "ports": [
            {"name": "http", "port": 80, "targetPort": 14001}, {"name": "dns", "port": 53, "protocol": "UDP"}]}});
        Arc::new(serde_json::from_value(service).unwrap())
    }

    fn slice(endpoints: serde_json::Value) -> Arc<EndpointSlice> {
        let slice = json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 14001, "protocol": "TCP"}], "endpoints": endpoints});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    #[test]
    fn a_service_port_leads_to_the_ready_endpoints_of_all_slices() {
        let first = slice(json!([{"addresses": ["10.244.0.3"], "conditions": {"ready": true}},
            {"addresses": ["10.244.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}}]));
        let second = slice(json!([{"addresses": ["10.244.0.2"]}]));
        let map = backends(&[service("10.96.0.7")], &[first, second]);
        let expected = vec!["10.244.0.2:14001".parse().unwrap(), "10.244.0.3:14001".parse().unwrap()];
        assert_eq!(map, BTreeMap::from([("10.96.0.7:80".parse().unwrap(), expected)]));
    }

    #[test]
    fn headless_services_and_services_without_ready_endpoints_have_no_listener() {
        let ready = slice(json!([{"addresses": ["10.244.0.3"]}]));
        assert!(backends(&[service("None")], &[ready]).is_empty());
        let unready = slice(json!([{"addresses": ["10.244.0.3"], "conditions": {"ready": false}}]));
        assert!(backends(&[service("10.96.0.7")], &[unready]).is_empty());
        assert!(backends(&[service("10.96.0.7")], &[slice(json!(null))]).is_empty());
    }
}
