//! What the two proxies are told: services with one endpoint each, and a policy for each kind of traffic.

use std::net::Ipv4Addr;

use fsm_proxy_config::{ConfigSet, Entry, Resource, ResourceName, proto};

pub const CONTROLLER: &str = "spiffe://cluster.local/ns/fsm-system/sa/fsm-controller";
const CLIENT: &str = "spiffe://cluster.local/ns/bench/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/bench/sa/server";
/// The port of every service.
pub const PORT: u16 = 80;

/// Which proxy of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Outbound,
    Inbound,
}

impl Side {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }

    pub fn identity(self) -> &'static str {
        match self {
            Self::Outbound => CLIENT,
            Self::Inbound => SERVER,
        }
    }
}

/// A service; `OUT_<name>` and `APP_<name>` are its ports.
pub struct Service {
    pub name: &'static str,
    full_name: &'static str,
    protocol: proto::Protocol,
}

pub const SERVICES: [Service; 4] = [
    Service { name: "HTTP", full_name: "bench/http", protocol: proto::Protocol::Http },
    Service { name: "H2", full_name: "bench/h2", protocol: proto::Protocol::Http2 },
    Service { name: "CONN", full_name: "bench/conn", protocol: proto::Protocol::Tcp },
    Service { name: "TCP", full_name: "bench/tcp", protocol: proto::Protocol::Tcp },
];

/// The address in the cluster of the service with this index.
pub fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, u8::try_from(index + 1).unwrap_or(u8::MAX))
}

/// The configuration of one side.
pub fn configuration(side: Side, trust_pem: &str) -> anyhow::Result<ConfigSet> {
    let mut set = ConfigSet { seq: 1, ..ConfigSet::default() };
    let mut add = |name: &str, resource: Resource| {
        let entry = Entry { version: 1, bytes: resource.encode().into() };
        set.resources.insert(ResourceName::new(resource.kind(), name), entry);
    };
    add("settings", Resource::Settings(settings()));
    add("trust", Resource::TrustBundle(proto::TrustBundle { pem: trust_pem.to_owned() }));
    add("workload", Resource::Workload(workload(side)?));
    match side {
        Side::Outbound => {
            for (index, service) in SERVICES.iter().enumerate() {
                let ports =
                    vec![proto::ServicePort { port: PORT.into(), name: "p".into(), protocol: service.protocol.into() }];
                let vips = vec![address(index).to_string()];
                let hosts = vec![service.full_name.replace('/', ".")];
                add(service.full_name, Resource::Service(proto::Service { hosts, vips, ports }));
                add(service.full_name, Resource::Endpoints(endpoints(service)?));
            }
        }
        Side::Inbound => {
            use proto::inbound_rule::Route;
            let reading = proto::HttpMatch {
                name: "reading".into(),
                path_regex: "/.*".into(),
                methods: vec!["GET".into(), "POST".into()],
                headers: vec![],
            };
            let opaque = [application("CONN")?, application("TCP")?];
            let to_group = proto::RouteGroupRef { group: "bench/reading".into(), matches: vec![] };
            add("bench/reading", Resource::RouteGroup(proto::RouteGroup { matches: vec![reading] }));
            add("bench/opaque", Resource::TcpRoute(proto::TcpRoute { ports: opaque.into() }));
            add("bench/http", Resource::InboundPolicy(policy(Route::Http(to_group))));
            add("bench/tcp", Resource::InboundPolicy(policy(Route::Tcp("bench/opaque".into()))));
        }
    }
    Ok(set)
}

fn settings() -> proto::Settings {
    proto::Settings {
        mesh_name: "bench".into(),
        trust_domain: "cluster.local".into(),
        permissive: false,
        egress: false,
        connect_timeout_ms: 5000,
        ..proto::Settings::default()
    }
}

fn application(service: &str) -> anyhow::Result<u32> {
    Ok(crate::variable::<u16>(&format!("APP_{service}"))?.into())
}

fn workload(side: Side) -> anyhow::Result<proto::Workload> {
    let mut ports: Vec<proto::InboundPort> = Vec::new();
    if side == Side::Inbound {
        for service in &SERVICES {
            let (port, services) = (application(service.name)?, vec![service.full_name.to_owned()]);
            // Two services may lead to one application.
            if ports.iter().all(|one| one.port != port) {
                ports.push(proto::InboundPort { port, protocol: service.protocol.into(), services });
            }
        }
    }
    let service_account = if side == Side::Inbound { "server" } else { "client" };
    Ok(proto::Workload {
        namespace: "bench".into(),
        pod: side.as_str().into(),
        service_account: service_account.into(),
        ports,
        ..proto::Workload::default()
    })
}

fn endpoints(service: &Service) -> anyhow::Result<proto::Endpoints> {
    let mapping = proto::PortMapping { service_port: PORT.into(), target_port: application(service.name)? };
    let endpoint = proto::Endpoint {
        address: Ipv4Addr::LOCALHOST.to_string(),
        identity: SERVER.into(),
        pod: "bench/server".into(),
        ..proto::Endpoint::default()
    };
    Ok(proto::Endpoints { service: service.full_name.into(), ports: vec![mapping], endpoints: vec![endpoint] })
}

fn policy(route: proto::inbound_rule::Route) -> proto::InboundPolicy {
    proto::InboundPolicy { sources: vec![CLIENT.into()], rules: vec![proto::InboundRule { route: Some(route) }] }
}
