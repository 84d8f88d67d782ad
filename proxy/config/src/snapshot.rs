//! A [`ConfigSet`] compiled for decisions: names resolved, expressions compiled, tables built.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::decide::Backend;
use crate::identity::SpiffeId;
use crate::model::{Endpoint, Protocol, Service, ServicePort, Settings, Workload};
use crate::policy::Policy;
use crate::pool::Pool;
use crate::resource::{InvalidResource, Kind, ResourceName};
use crate::route::RouteGroup;
use crate::set::{ConfigSet, Digest, Entry};
use crate::split::Split;

/// An immutable, compiled configuration. Building one checks everything; using it cannot fail.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) set: ConfigSet,
    pub(crate) digest: Digest,
    pub(crate) settings: Settings,
    pub(crate) workload: Workload,
    pub(crate) identity: Option<SpiffeId>,
    pub(crate) trust_bundle: String,
    pub(crate) services: Vec<CompiledService>,
    pub(crate) by_vip: HashMap<IpAddr, usize>,
    pub(crate) by_endpoint: HashMap<SocketAddr, Vec<EndpointAt>>,
    pub(crate) by_host: HashMap<String, usize>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) by_source: HashMap<SpiffeId, Vec<usize>>,
    pub(crate) groups: BTreeMap<String, Arc<RouteGroup>>,
}

/// A service with what is behind each of its ports.
#[derive(Debug)]
pub(crate) struct CompiledService {
    pub service: Service,
    /// In the order of `service.ports`.
    pub ports: Vec<CompiledPort>,
}

#[derive(Debug)]
pub(crate) struct CompiledPort {
    pub pool: Pool,
    /// In the order in which they are looked at.
    pub splits: Vec<Split>,
}

/// A service port, by its place in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortAt {
    pub service: usize,
    pub port: usize,
}

/// An endpoint, by its place in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndpointAt {
    pub at: PortAt,
    pub endpoint: usize,
}

impl Snapshot {
    /// Compiles a configuration. A resource that cannot be used is an error that names it (the proxy answers NACK).
    /// A reference to something that is not there is none: it allows nothing and gets no traffic.
    pub fn compile(set: ConfigSet) -> Result<Self, InvalidResource> {
        crate::compile::compile(set, None)
    }

    /// As [`Snapshot::compile`], for a configuration that follows this one: what did not change is not compiled again.
    pub fn compile_next(&self, set: ConfigSet) -> Result<Self, InvalidResource> {
        crate::compile::compile(set, Some(self))
    }

    /// The route group `name` if it was compiled from the same bytes.
    pub(crate) fn same_group(&self, name: &ResourceName, entry: &Entry) -> Option<Arc<RouteGroup>> {
        let same = name.kind == Kind::RouteGroup && self.set.resources.get(name)?.bytes == entry.bytes;
        if same { self.groups.get(&*name.name).cloned() } else { None }
    }

    /// The configuration that this was compiled from.
    pub fn set(&self) -> &ConfigSet {
        &self.set
    }

    /// The seq of the configuration; 0 before the first one.
    pub fn seq(&self) -> u64 {
        self.set.seq
    }

    /// [`ConfigSet::digest`], computed once.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether it can serve: settings, workload and trust bundle are there.
    pub fn is_complete(&self) -> bool {
        let there = |kind, name| self.set.resources.contains_key(&ResourceName::new(kind, name));
        there(Kind::Settings, "settings") && there(Kind::Workload, "workload") && there(Kind::TrustBundle, "trust")
    }

    /// Mesh-wide behaviour.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The pod that this proxy serves.
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// The identity of the workload, as a caller; none until the controller has sent settings and workload.
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.identity.as_ref()
    }

    /// The certificates that peers are verified against, PEM; empty until the controller has sent them.
    pub fn trust_bundle(&self) -> &str {
        &self.trust_bundle
    }

    /// All services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter().map(|compiled| &compiled.service)
    }

    /// Every service port with its endpoints, by service name and port; for dumps and for the upkeep of connections.
    pub fn pools(&self) -> impl Iterator<Item = (&Service, &ServicePort, &[Endpoint])> {
        self.services.iter().flat_map(|compiled| {
            let ports = compiled.service.ports.iter().zip(&compiled.ports);
            ports.map(|(port, behind)| (&compiled.service, port, &*behind.pool.endpoints))
        })
    }

    /// Every service port that has endpoints, as a request for it would find it.
    pub fn backends(&self) -> impl Iterator<Item = Backend<'_>> {
        let ports = self.services.iter().flat_map(|compiled| &compiled.ports);
        ports.filter(|behind| !behind.pool.endpoints.is_empty()).map(|behind| behind.pool.backend())
    }

    /// What a destination speaks, before any byte is read; [`Protocol::Detect`] if nobody said.
    pub fn outbound_protocol(&self, destination: SocketAddr) -> Protocol {
        let destination = canonical(destination);
        let at = self.vip_port(destination).or_else(|| self.endpoints_at(destination).first().map(|one| one.at));
        at.map_or(Protocol::Detect, |at| self.port_at(at).1.protocol)
    }

    /// What a port of this pod's application speaks; [`Protocol::Detect`] if nobody said.
    pub fn inbound_protocol(&self, port: u16) -> Protocol {
        let declared = self.workload.ports.iter().find(|one| one.port == port);
        declared.map_or(Protocol::Detect, |one| one.protocol)
    }

    /// The port of the service that has this cluster address.
    pub(crate) fn vip_port(&self, destination: SocketAddr) -> Option<PortAt> {
        let service = *self.by_vip.get(&destination.ip())?;
        self.find_port(service, destination.port())
    }

    pub(crate) fn find_port(&self, service: usize, number: u16) -> Option<PortAt> {
        let ports = &self.services[service].service.ports;
        ports.iter().position(|port| port.number == number).map(|port| PortAt { service, port })
    }

    pub(crate) fn endpoints_at(&self, address: SocketAddr) -> &[EndpointAt] {
        self.by_endpoint.get(&address).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn port_at(&self, at: PortAt) -> (&Service, &ServicePort, &CompiledPort) {
        let compiled = &self.services[at.service];
        (&compiled.service, &compiled.service.ports[at.port], &compiled.ports[at.port])
    }
}

/// An IPv4 address that came as an IPv4-mapped IPv6 one (a dual-stack socket) is an IPv4 address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
