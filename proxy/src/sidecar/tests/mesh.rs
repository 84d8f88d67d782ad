//! A small mesh: each pod has a loopback address of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fsm_proxy_config::{ConfigSet, Entry, Resource, ResourceName, Snapshot, proto};

use crate::accept::OriginalDst;
use crate::limits::Limits;
use crate::sidecar::{Addresses, Config, Handle, Sidecar, Sources};
use crate::tls::testing::TestCa;

pub const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/buyer";
pub const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/store";
/// The cluster address of the service `shop/store`.
pub const VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 80);

/// A loopback address that no other test uses, in this process or another one.
pub fn pod_ip() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = number.to_be_bytes();
    let process = u8::try_from(std::process::id() % 120).unwrap() + 1;
    IpAddr::V4(Ipv4Addr::new(127, process + high, low, 1 + u8::try_from(number % 250).unwrap()))
}

/// Named resources, as the controller would send them.
#[derive(Clone, Default)]
pub struct Resources(Vec<(&'static str, Resource)>);

impl Resources {
    /// Settings and workload, in permissive mode unless changed later.
    pub fn new(service_account: &str, ports: &[(u16, proto::Protocol)]) -> Self {
        let settings = proto::Settings {
            mesh_name: "fsm".into(),
            trust_domain: "cluster.local".into(),
            permissive: true,
            connect_timeout_ms: 10_000,
            ..Default::default()
        };
        let ports = ports.iter().map(|(port, protocol)| proto::InboundPort {
            port: u32::from(*port),
            protocol: (*protocol).into(),
            services: vec!["shop/store".into()],
        });
        let workload = proto::Workload {
            namespace: "shop".into(),
            pod: format!("{service_account}-1"),
            service_account: service_account.into(),
            ports: ports.collect(),
            ..Default::default()
        };
        Self::default().with("settings", Resource::Settings(settings)).with("workload", Resource::Workload(workload))
    }

    pub fn with(mut self, name: &'static str, resource: Resource) -> Self {
        self.0.retain(|(other, one)| (*other, one.kind()) != (name, resource.kind()));
        self.0.push((name, resource));
        self
    }

    pub fn settings(mut self, change: impl FnOnce(&mut proto::Settings)) -> Self {
        for (_, resource) in &mut self.0 {
            if let Resource::Settings(settings) = resource {
                change(settings);
                return self;
            }
        }
        panic!("no settings");
    }

    /// A service with one port, 80, at the cluster address `vip`.
    pub fn service(self, name: &'static str, vip: &str, protocol: proto::Protocol) -> Self {
        let port = proto::ServicePort { port: 80, name: "p".into(), protocol: protocol.into() };
        let host = name.split_once('/').unwrap().1.to_owned();
        let vips = if vip.is_empty() { Vec::new() } else { vec![vip.to_owned()] };
        self.with(name, Resource::Service(proto::Service { hosts: vec![host], vips, ports: vec![port] }))
    }

    /// Endpoints of a service; they all have the same target port.
    pub fn endpoints(self, service: &'static str, addresses: &[SocketAddr], identity: &str) -> Self {
        let target_port = addresses.first().map_or(1, |address| u32::from(address.port()));
        let endpoints = addresses.iter().map(|address| proto::Endpoint {
            address: address.ip().to_string(),
            identity: identity.into(),
            pod: "shop/store-1".into(),
            ..proto::Endpoint::default()
        });
        let endpoints = proto::Endpoints {
            service: service.into(),
            ports: vec![proto::PortMapping { service_port: 80, target_port }],
            endpoints: endpoints.collect(),
        };
        self.with(service, Resource::Endpoints(endpoints))
    }

    pub fn snapshot(&self, trust: &str) -> Arc<Snapshot> {
        let trust = Resource::TrustBundle(proto::TrustBundle { pem: trust.to_owned() });
        let mut set = ConfigSet { seq: 1, ..Default::default() };
        for (name, resource) in self.0.iter().chain([&("trust", trust)]) {
            let entry = Entry { version: 1, bytes: resource.encode().into() };
            set.resources.insert(ResourceName::new(resource.kind(), *name), entry);
        }
        Arc::new(Snapshot::compile(set).unwrap())
    }
}

/// One certificate authority, and the sidecars that it has certified.
pub struct Mesh {
    ca: TestCa,
}

/// A sidecar and what it is told.
pub struct Pod {
    pub ip: IpAddr,
    pub handle: Handle,
    pub sources: Sources,
    trust: String,
}

impl Mesh {
    pub fn new() -> Self {
        Self { ca: TestCa::new() }
    }

    /// A sidecar with its configuration and certificate.
    pub fn pod(&self, spiffe: &str, ip: IpAddr, resources: &Resources) -> Pod {
        self.pod_with(spiffe, ip, resources, |_| {})
    }

    pub fn pod_with(&self, spiffe: &str, ip: IpAddr, resources: &Resources, change: impl FnOnce(&mut Config)) -> Pod {
        let sources = Sources::default();
        sources.tls.set(self.ca.issue(spiffe, Duration::from_secs(3600))).unwrap();
        // Not left to the kernel: it could choose the port of an application, and a proxy's own ports are refused.
        let on = |port| vec![SocketAddr::new(ip, port)];
        let mut config = Config {
            addresses: Addresses {
                outbound: on(15001),
                capture: on(15003),
                mesh: on(super::super::MESH_PORT),
                metrics: on(15010),
                probes: on(15901),
                names: Vec::new(),
            },
            limits: Limits { sniff_timeout: Duration::from_millis(50), ..Limits::default() },
            original_dst: OriginalDst::Fixed(VIP),
            pod_ip: Some(ip),
            ..Config::default()
        };
        change(&mut config);
        let handle = Sidecar::start(config, sources.clone()).unwrap();
        let pod = Pod { ip, handle, sources, trust: self.ca.trust_pem() };
        pod.configure(resources);
        pod
    }

    /// Gives a pod another certificate of its identity.
    pub fn renew(&self, pod: &Pod, spiffe: &str) {
        pod.sources.tls.set(self.ca.issue(spiffe, Duration::from_secs(3600))).unwrap();
    }

    /// A client and a server pod, for an application that listens on `port` and speaks `protocol`.
    pub fn pair(&self, application: SocketAddr, protocol: proto::Protocol) -> Pair {
        let ip = pod_ip();
        let endpoint = SocketAddr::new(ip, application.port());
        let server_resources = Resources::new("store", &[(application.port(), protocol)]);
        let client_resources = Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", protocol).endpoints(
            "shop/store",
            &[endpoint],
            SERVER,
        );
        let server = self.pod(SERVER, ip, &server_resources);
        let client = self.pod(CLIENT, pod_ip(), &client_resources);
        Pair { client, server, client_resources, server_resources, endpoint }
    }
}

/// Two pods, and what they were told.
pub struct Pair {
    pub client: Pod,
    pub server: Pod,
    pub client_resources: Resources,
    pub server_resources: Resources,
    /// The server's application, as the client knows it.
    pub endpoint: SocketAddr,
}

impl Pod {
    /// Replaces the configuration.
    pub fn configure(&self, resources: &Resources) {
        self.sources.snapshots.store(Some(resources.snapshot(&self.trust)));
    }

    /// Where the application's connections come in.
    pub fn outbound(&self) -> SocketAddr {
        self.handle.bound().outbound[0]
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        self.handle.context.metrics.text(&self.handle.context.state())
    }
}

/// Policies of the server for the client `buyer`: GET and POST on `/books`, or everything on TCP `port`.
pub fn http_policy(resources: Resources) -> Resources {
    let group = proto::RouteGroup {
        matches: vec![proto::HttpMatch {
            name: "books".into(),
            path_regex: "/books.*".into(),
            methods: vec!["GET".into(), "POST".into()],
            headers: Vec::new(),
        }],
    };
    let route = proto::inbound_rule::Route::Http(proto::RouteGroupRef { group: "shop/routes".into(), matches: vec![] });
    policy(resources.with("shop/routes", Resource::RouteGroup(group)), route)
}

pub fn tcp_policy(resources: Resources, port: u16) -> Resources {
    let route = proto::TcpRoute { ports: vec![u32::from(port)] };
    let rule = proto::inbound_rule::Route::Tcp("shop/tcp".into());
    policy(resources.with("shop/tcp", Resource::TcpRoute(route)), rule)
}

fn policy(resources: Resources, route: proto::inbound_rule::Route) -> Resources {
    let policy =
        proto::InboundPolicy { sources: vec![CLIENT.into()], rules: vec![proto::InboundRule { route: Some(route) }] };
    resources.settings(|settings| settings.permissive = false).with("shop/target", Resource::InboundPolicy(policy))
}
