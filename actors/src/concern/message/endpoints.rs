//! Endpoints: one message for each EndpointSlice.

use fsm_api::core::Endpoint;
use fsm_proxy_config::proto;

use crate::catalog::Catalog;
use crate::catalog::view::{Service, Slice};

/// The message of a slice of `service`. Left out are endpoints that are not ready, and those whose pod isn't known yet or has
/// ended: their identity would be a guess.
pub fn endpoints(catalog: &Catalog, slice: &Slice, service: &Service) -> proto::Endpoints {
    let mut ports: Vec<proto::PortMapping> = slice
        .ports
        .iter()
        .filter_map(|port| {
            let service_port = service.ports.iter().find(|candidate| candidate.name == port.name)?;
            Some(proto::PortMapping { service_port: u32::from(service_port.port), target_port: u32::from(port.port?) })
        })
        .collect();
    ports.sort_by_key(|port| (port.service_port, port.target_port));
    let mut endpoints: Vec<proto::Endpoint> =
        slice.endpoints.iter().filter_map(|endpoint| message(catalog, slice, endpoint)).collect();
    endpoints.sort_by(|one, other| (&one.address, &one.pod).cmp(&(&other.address, &other.pod)));
    proto::Endpoints { service: slice.service.to_string(), ports, endpoints }
}

fn message(catalog: &Catalog, slice: &Slice, endpoint: &Endpoint) -> Option<proto::Endpoint> {
    let address = endpoint.addresses.first().filter(|_| endpoint.conditions.is_ready())?.clone();
    let zone = endpoint.zone.clone();
    let Some(name) = slice.pod(endpoint) else {
        return Some(proto::Endpoint { address, zone, ..proto::Endpoint::default() });
    };
    let pod = catalog.pods().get(&name).filter(|pod| !pod.finished)?;
    let identity = match catalog.meshed_pod(&name) {
        Some(_) => catalog.mesh().identity(&pod.account)?.to_string(),
        None => String::new(),
    };
    Some(proto::Endpoint { address, identity, pod: name.to_string(), zone })
}
