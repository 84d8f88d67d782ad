//! Endpoints: one message for each EndpointSlice.

use fsm_proxy_config::proto;

use crate::catalog::Catalog;
use crate::catalog::view::{Endpoint, Service, Slice};

/// Where the ports of a service are on the endpoints of one of its slices.
pub fn endpoint_ports(slice: &Slice, service: &Service) -> Vec<proto::PortMapping> {
    let mut ports: Vec<proto::PortMapping> = slice
        .ports
        .iter()
        .filter_map(|port| {
            let service_port = service.ports.iter().find(|candidate| candidate.name == port.name)?;
            Some(proto::PortMapping { service_port: u32::from(service_port.port), target_port: u32::from(port.port?) })
        })
        .collect();
    ports.sort_by_key(|port| (port.service_port, port.target_port));
    ports
}

/// The message of an endpoint. None if it is not ready, or if its pod isn't known yet or has ended: its identity would be a guess.
pub fn endpoint(catalog: &Catalog, endpoint: &Endpoint) -> Option<proto::Endpoint> {
    if !endpoint.ready {
        return None;
    }
    let (address, zone) = (endpoint.address.clone(), endpoint.zone.clone());
    let Some(name) = &endpoint.pod else {
        return Some(proto::Endpoint { address, zone, ..proto::Endpoint::default() });
    };
    let pod = catalog.pods().get(name).filter(|pod| !pod.finished)?;
    let identity = match catalog.is_meshed(name, pod) {
        true => catalog.mesh().identity(&pod.account)?.text().to_owned(),
        false => String::new(),
    };
    Some(proto::Endpoint { address, identity, pod: name.text().to_owned(), zone, weight: None })
}
