//! Joins the resources of a [`ConfigSet`] into the tables of a [`Snapshot`].
//!
//! Everything goes in the order of the resources' names, so that when two claim the same address or host, the same
//! one wins everywhere.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::decide::RefusalKind;
use crate::identity::SpiffeId;
use crate::model::{Endpoint, Settings, Workload};
use crate::parse::{self, At, Slice};
use crate::policy::{HttpRule, Policy, TcpRule};
use crate::pool::{self, Attachment, Pool};
use crate::proto;
use crate::resource::{InvalidResource, Resource, ResourceName};
use crate::route::{GroupRef, RouteGroup};
use crate::set::ConfigSet;
use crate::snapshot::{CompiledPort, CompiledService, EndpointAt, PortAt, Snapshot};
use crate::split::Split;
use crate::traffic::{self, TrafficPolicy};

/// The resources after parsing, by name.
#[derive(Default)]
struct Parsed {
    settings: Settings,
    workload: Workload,
    trust_bundle: String,
    services: BTreeMap<String, crate::model::Service>,
    slices: Vec<Slice>,
    splits: BTreeMap<String, proto::Split>,
    groups: BTreeMap<String, Arc<RouteGroup>>,
    tcp_routes: BTreeMap<String, Vec<u16>>,
    policies: BTreeMap<String, (Vec<SpiffeId>, proto::InboundPolicy)>,
    /// By service, and by port if it is for one only.
    traffic: BTreeMap<(String, Option<u16>), TrafficPolicy>,
}

/// By service and port.
type Pools<'a> = BTreeMap<(&'a str, u16), Pool>;

/// `before` is any earlier snapshot: route groups whose bytes are the same are taken from it, because compiling their
/// expressions costs more than everything else together.
pub(crate) fn compile(set: ConfigSet, before: Option<&Snapshot>) -> Result<Snapshot, InvalidResource> {
    let mut parsed = Parsed::default();
    for (name, entry) in &set.resources {
        if let Some(group) = before.and_then(|before| before.same_group(name, entry)) {
            parsed.groups.insert(name.name.to_string(), group);
            continue;
        }
        let resource = Resource::decode(name.kind, &entry.bytes).map_err(|error| At(name).invalid("bytes", error))?;
        parsed.add(name, resource)?;
    }
    let services = parsed.join_services();
    let by_host = by_host(&services, &parsed.workload.namespace);
    let policies: Vec<Policy> =
        parsed.policies.iter().map(|(name, (sources, policy))| parsed.join_policy(name, sources, policy)).collect();
    let mut by_source: HashMap<SpiffeId, Vec<usize>> = HashMap::new();
    for (index, policy) in policies.iter().enumerate() {
        for source in &policy.sources {
            let indexes = by_source.entry(source.clone()).or_default();
            if indexes.last() != Some(&index) {
                indexes.push(index);
            }
        }
    }
    let workload = &parsed.workload;
    let identity = SpiffeId::new(&parsed.settings.trust_domain, &workload.namespace, &workload.service_account).ok();
    Ok(Snapshot {
        digest: set.digest(),
        by_vip: by_vip(&services),
        by_endpoint: by_endpoint(&services),
        set,
        settings: parsed.settings,
        workload: parsed.workload,
        identity,
        trust_bundle: parsed.trust_bundle,
        services,
        by_host,
        policies,
        by_source,
        groups: parsed.groups,
    })
}

impl Parsed {
    fn add(&mut self, name: &ResourceName, resource: Resource) -> Result<(), InvalidResource> {
        let at = At(name);
        let key = name.name.to_string();
        match resource {
            Resource::Settings(message) => self.settings = parse::settings(at, &message)?,
            Resource::Workload(message) => self.workload = parse::workload(at, &message)?,
            Resource::TrustBundle(message) => self.trust_bundle = message.pem,
            Resource::Service(message) => drop(self.services.insert(key, parse::service(at, &message)?)),
            Resource::Endpoints(message) => self.slices.push(parse::endpoints(at, &message)?),
            Resource::Split(message) => drop(self.splits.insert(key, message)),
            Resource::RouteGroup(message) => drop(self.groups.insert(key, Arc::new(parse::route_group(at, &message)?))),
            Resource::TcpRoute(message) => drop(self.tcp_routes.insert(key, parse::tcp_route(at, &message)?)),
            Resource::InboundPolicy(message) => {
                drop(self.policies.insert(key, (parse::sources(at, &message)?, message)));
            }
            Resource::TrafficPolicy(message) => {
                let policy = traffic::parse::policy(at, &message)?;
                drop(self.traffic.insert(traffic::parse::applies_to(at)?, policy));
            }
        }
        Ok(())
    }

    fn join_services(&self) -> Vec<CompiledService> {
        let pools = self.pools();
        let services = self.services.iter().map(|(name, service)| {
            let ports = service.ports.iter().map(|port| CompiledPort {
                pool: pools.get(&(name.as_str(), port.number)).cloned().unwrap_or_else(|| Pool {
                    service: name.as_str().into(),
                    port: port.number,
                    endpoints: Arc::default(),
                    policy: Arc::default(),
                    attachment: Attachment::default(),
                }),
                splits: self.join_splits(name, port.number, &pools),
            });
            CompiledService { ports: ports.collect(), service: service.clone() }
        });
        services.collect()
    }

    /// The endpoints of every service port, from all slices of the service.
    fn pools(&self) -> Pools<'_> {
        let mut merged: BTreeMap<(&str, u16), BTreeMap<SocketAddr, Endpoint>> = BTreeMap::new();
        for slice in &self.slices {
            for (service_port, target_port) in &slice.ports {
                let pool = merged.entry((slice.service.as_str(), *service_port)).or_default();
                for endpoint in &slice.endpoints {
                    let address = SocketAddr::new(endpoint.address.to_canonical(), *target_port);
                    pool.entry(address).or_insert_with(|| Endpoint {
                        address,
                        identity: endpoint.identity.clone(),
                        pod: endpoint.pod.clone(),
                        zone: endpoint.zone.clone(),
                        weight: endpoint.weight,
                    });
                }
            }
        }
        let by_default: Arc<TrafficPolicy> = Arc::default();
        let policies: BTreeMap<(&str, Option<u16>), Arc<TrafficPolicy>> = (self.traffic.iter())
            .map(|((service, port), policy)| {
                ((service.as_str(), *port), Arc::new(policy.clone().in_zone(&self.workload.zone)))
            })
            .collect();
        let pool = |((service, port), endpoints): ((_, _), BTreeMap<_, Endpoint>)| {
            let policy = policies.get(&(service, Some(port))).or_else(|| policies.get(&(service, None)));
            let pool = Pool {
                service: service.into(),
                port,
                endpoints: endpoints.into_values().collect(),
                policy: policy.unwrap_or(&by_default).clone(),
                attachment: Attachment::default(),
            };
            ((service, port), pool)
        };
        merged.into_iter().map(pool).collect()
    }

    /// The splits of a service, for one port: those with route groups first.
    fn join_splits(&self, service: &str, port: u16, pools: &Pools<'_>) -> Vec<Split> {
        let mine = self.splits.iter().filter(|(_, split)| split.service == service);
        let mut splits: Vec<Split> = mine.map(|(name, split)| self.join_split(name, split, port, pools)).collect();
        splits.sort_by_key(|split| split.groups.is_empty());
        splits
    }

    fn join_split(&self, name: &str, split: &proto::Split, port: u16, pools: &Pools<'_>) -> Split {
        let mut taking = Vec::new();
        let mut left_out = Vec::new();
        let (mut told, mut untold) = (false, false);
        for backend in &split.backends {
            let service = backend.service.as_str();
            let known = self.services.get(service);
            if backend.weight > 0 {
                told |= known.is_some();
                untold |= known.is_none();
            }
            let left = match (known, pools.get(&(service, port))) {
                _ if backend.weight == 0 => "has weight 0".to_owned(),
                (None, _) => "is no service that this workload is told of".to_owned(),
                (Some(known), _) if known.port(port).is_none() => format!("has no port {port}"),
                (Some(_), Some(pool)) if !pool.endpoints.is_empty() => {
                    taking.push((pool.clone(), backend.weight));
                    continue;
                }
                (Some(_), _) => format!("has no endpoint that is ready on port {port}"),
            };
            left_out.push(format!("backend {service} {left}"));
        }
        Split {
            name: name.to_owned(),
            groups: split.route_groups.iter().map(|group| self.group(group)).collect(),
            pools: pool::weigh(taking),
            left_out,
            // As if it had asked for the backends themselves.
            without_pools: if untold && !told { RefusalKind::UnknownDestination } else { RefusalKind::NoBackend },
        }
    }

    fn group(&self, name: &str) -> GroupRef {
        GroupRef { name: name.to_owned(), group: self.groups.get(name).cloned() }
    }

    fn join_policy(&self, name: &str, sources: &[SpiffeId], policy: &proto::InboundPolicy) -> Policy {
        use proto::inbound_rule::Route;
        let mut joined = Policy { name: name.to_owned(), sources: sources.to_vec(), http: Vec::new(), tcp: Vec::new() };
        for rule in &policy.rules {
            match &rule.route {
                Some(Route::Http(reference)) => joined
                    .http
                    .push(HttpRule { group: self.group(&reference.group), matches: reference.matches.clone() }),
                Some(Route::Tcp(name)) => {
                    joined.tcp.push(TcpRule { name: name.clone(), ports: self.tcp_routes.get(name).cloned() });
                }
                // A kind of rule from a newer controller: it restricts, and can't match here.
                None => joined.tcp.push(TcpRule { name: "(of an unknown kind)".to_owned(), ports: None }),
            }
        }
        joined
    }
}

fn by_vip(services: &[CompiledService]) -> HashMap<IpAddr, usize> {
    let mut table = HashMap::new();
    for (index, compiled) in services.iter().enumerate() {
        for vip in &compiled.service.vips {
            table.entry(vip.to_canonical()).or_insert(index);
        }
    }
    table
}

/// A pod may back several services: headless ones, whose clients dial pods, come first.
fn by_endpoint(services: &[CompiledService]) -> HashMap<SocketAddr, Vec<EndpointAt>> {
    let mut table: HashMap<SocketAddr, Vec<EndpointAt>> = HashMap::new();
    for headless in [true, false] {
        for (service, compiled) in
            services.iter().enumerate().filter(|(_, one)| one.service.vips.is_empty() == headless)
        {
            for (port, behind) in compiled.ports.iter().enumerate() {
                for (endpoint, one) in behind.pool.endpoints.iter().enumerate() {
                    table.entry(one.address).or_default().push(EndpointAt { at: PortAt { service, port }, endpoint });
                }
            }
        }
    }
    table
}

/// A bare name means a service only to workloads of its own namespace, as in cluster DNS: the search list
/// that a pod's resolver is given names no other namespace.
fn by_host(services: &[CompiledService], namespace: &str) -> HashMap<String, usize> {
    let near = |compiled: &CompiledService| {
        compiled.service.name.split_once('/').is_some_and(|(of_service, _)| of_service == namespace)
    };
    let mut table = HashMap::new();
    for (index, compiled) in services.iter().enumerate() {
        let near = near(compiled);
        for host in compiled.service.hosts.iter().filter(|host| near || host.contains('.')) {
            table.insert(host.clone(), index);
        }
    }
    table
}
