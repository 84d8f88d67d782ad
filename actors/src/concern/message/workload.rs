//! The pod that a proxy serves.

use std::collections::{BTreeMap, BTreeSet};

use fsm_proxy_config::proto::{self, Protocol};

use super::protocol;
use crate::catalog::view::Pod;
use crate::catalog::{Catalog, ObjectName};

/// The message of a pod with a proxy: its ports are those to which services of the mesh send traffic.
pub fn workload(catalog: &Catalog, name: &ObjectName, pod: &Pod) -> proto::Workload {
    let mut ports: BTreeMap<u16, (Protocol, BTreeSet<String>)> = BTreeMap::new();
    let mut zone = "";
    for (_, slice) in catalog.slices_of_pod(name) {
        if let Some((_, its_zone)) = slice.pods().find(|(pod, _)| *pod == name) {
            zone = its_zone;
        }
        let Some(service) = catalog.mesh_service(&slice.service) else { continue };
        for slice_port in slice.ports.iter() {
            let service_port = service.ports.iter().find(|candidate| candidate.name == slice_port.name);
            let (Some(target), Some(service_port)) = (slice_port.port, service_port) else { continue };
            let spoken = protocol(service_port.app_protocol.as_deref(), &service_port.name);
            let (declared, services) = ports.entry(target).or_insert((spoken, BTreeSet::new()));
            // Services may disagree about a port: the first in the order of names that declares something counts.
            if *declared == Protocol::Detect {
                *declared = spoken;
            }
            services.insert(slice.service.to_string());
        }
    }
    proto::Workload {
        namespace: name.namespace().to_owned(),
        pod: name.name().to_owned(),
        service_account: pod.account.name().to_owned(),
        node: pod.node.to_string(),
        zone: zone.to_owned(),
        ports: ports
            .into_iter()
            .map(|(port, (protocol, services))| proto::InboundPort {
                port: u32::from(port),
                protocol: protocol.into(),
                services: services.into_iter().collect(),
            })
            .collect(),
    }
}
