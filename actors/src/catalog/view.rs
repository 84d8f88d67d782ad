//! What the mesh reads of each kind of object. An object that changes elsewhere (a heartbeat, a managed field) has an equal
//! view, and nothing is computed anew.

mod pod;
mod slice;

use std::collections::{BTreeMap, BTreeSet};

use fsm_api::core::{self as k8s, ServicePort};
use fsm_api::{HttpRouteGroup, TcpRoute, TrafficSplit, TrafficTarget, Validate, names};
use serde::de::DeserializeOwned;

use super::ObjectName;
use crate::Json;
pub use pod::Pod;
pub(super) use pod::pod;
pub(super) use slice::slice;
pub use slice::{Endpoint, Exchanged, Slice};

/// A service account: who a workload is.
pub type Account = ObjectName;

/// The container that the injector adds.
pub const SIDECAR_CONTAINER: &str = "sidecar";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// TCP ports.
    pub ports: Vec<ServicePort>,
    pub vips: Vec<String>,
    /// Kept out of the mesh by its own label or annotation.
    pub excluded: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub apex: ObjectName,
    pub backends: Vec<(ObjectName, u32)>,
    /// In the split's namespace; empty means all requests.
    pub route_groups: BTreeSet<ObjectName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub destination: Account,
    pub sources: BTreeSet<Account>,
    pub rules: Vec<Rule>,
}

/// What a [`Target`] allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Some matches of a route group; none named means all.
    Http {
        group: ObjectName,
        matches: Vec<String>,
    },
    Tcp {
        route: ObjectName,
    },
}

pub type RouteGroup = fsm_api::smi::HttpRouteGroupSpec;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpPorts {
    /// Empty means every port.
    pub ports: BTreeSet<u16>,
}

/// Why an object counts as absent.
pub type Unusable = String;

fn read<T: DeserializeOwned>(json: &Json) -> Result<T, Unusable> {
    serde_json::from_str(json.get()).map_err(|error| error.to_string())
}

fn valid<T: DeserializeOwned + Validate>(json: &Json) -> Result<T, Unusable> {
    let object: T = read(json)?;
    let report = object.validate();
    if report.is_ok() { Ok(object) } else { Err(report.error_text()) }
}

fn is_tcp(protocol: &str) -> bool {
    matches!(protocol, "" | "TCP")
}

pub(super) fn namespace(json: &Json) -> Result<Namespace, Unusable> {
    let object: k8s::Namespace = read(json)?;
    Ok(Namespace { labels: object.metadata.labels, annotations: object.metadata.annotations })
}

pub(super) fn service(json: &Json) -> Result<Service, Unusable> {
    let object: k8s::Service = read(json)?;
    let excluded = object.metadata.label(names::IGNORE).is_some()
        || object.metadata.annotation(names::SERVICE_EXCLUSION).and_then(names::switch) == Some(true)
        || object.spec.kind == "ExternalName";
    let vips: BTreeSet<String> = object.spec.vips().map(str::to_owned).collect();
    let mut ports: Vec<ServicePort> = object.spec.ports.into_iter().filter(|port| is_tcp(&port.protocol)).collect();
    ports.sort_by_key(|port| port.port);
    Ok(Service { ports, vips: vips.into_iter().collect(), excluded })
}

pub(super) fn split(json: &Json) -> Result<Split, Unusable> {
    let object: TrafficSplit = valid(json)?;
    let own = &object.metadata.namespace;
    let service = |text: String| text.parse::<ObjectName>().map_err(|error| error.to_string());
    let mut backends = object
        .spec
        .backends
        .iter()
        .map(|backend| {
            let weight = u32::try_from(backend.weight).map_err(|error| error.to_string())?;
            Ok((service(backend.full_name(own))?, weight))
        })
        .collect::<Result<Vec<_>, Unusable>>()?;
    backends.sort();
    let route_groups = object.spec.matches.iter().map(|each| ObjectName::new(own, &each.name)).collect();
    Ok(Split { apex: service(object.spec.apex(own))?, backends, route_groups })
}

pub(super) fn target(json: &Json) -> Result<Target, Unusable> {
    let object: TrafficTarget = valid(json)?;
    let own = &object.metadata.namespace;
    let rules = object.spec.rules.into_iter().map(|rule| {
        let route = ObjectName::new(own, rule.name);
        if rule.kind == "TCPRoute" { Rule::Tcp { route } } else { Rule::Http { group: route, matches: rule.matches } }
    });
    Ok(Target {
        destination: Account::new(own, &object.spec.destination.name),
        sources: object
            .spec
            .sources
            .iter()
            .map(|source| Account::new(source.namespace_or(own), &source.name))
            .collect(),
        rules: rules.collect(),
    })
}

pub(super) fn route_group(json: &Json) -> Result<RouteGroup, Unusable> {
    Ok(valid::<HttpRouteGroup>(json)?.spec)
}

pub(super) fn tcp_route(json: &Json) -> Result<TcpPorts, Unusable> {
    let object: TcpRoute = valid(json)?;
    let ports = object.spec.matches.ports.iter().map(|port| u16::try_from(*port).map_err(|error| error.to_string()));
    Ok(TcpPorts { ports: ports.collect::<Result<_, _>>()? })
}
