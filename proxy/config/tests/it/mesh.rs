//! Small meshes for tests, put together resource by resource.

use fsm_proxy_config::proto::inbound_rule::Route;
use fsm_proxy_config::proto::{
    Backend, Endpoint, Endpoints, HeaderMatch, HttpMatch, InboundPolicy, InboundPort, InboundRule, PortMapping,
    Protocol, RouteGroup, RouteGroupRef, Service, ServicePort, Settings, Split, TcpRoute, TrustBundle, Workload,
};
use fsm_proxy_config::{
    ConfigSet, Connection, Decision, Entry, Kind, RequestHead, Resource, ResourceName, Snapshot, SpiffeId, decide,
};
use http::{HeaderMap, HeaderName, HeaderValue};

pub const BUYER: &str = "spiffe://cluster.local/ns/bookbuyer/sa/bookbuyer";
pub const THIEF: &str = "spiffe://cluster.local/ns/bookthief/sa/bookthief";
pub const STORE_VIP: &str = "10.96.0.10:14001";

/// A configuration under construction. It begins with settings and a workload in namespace `bookstore`.
#[derive(Clone)]
pub struct Mesh {
    pub set: ConfigSet,
}

impl Mesh {
    pub fn new() -> Self {
        let mut mesh = Self { set: ConfigSet::default() };
        mesh.put("trust", Resource::TrustBundle(TrustBundle { pem: "-----BEGIN CERTIFICATE-----".to_owned() }));
        mesh.workload("bookstore", "bookstore").settings(|_| ())
    }

    /// The bookstore: an apex service without endpoints of its own, and two versions with one pod each.
    pub fn bookstore() -> Self {
        Self::new()
            .service("bookstore/bookstore", "10.96.0.10", 14001)
            .service("bookstore/bookstore-v1", "10.96.0.11", 14001)
            .service("bookstore/bookstore-v2", "10.96.0.12", 14001)
            .endpoints("bookstore/bookstore-v1", 14001, &["10.244.0.11"])
            .endpoints("bookstore/bookstore-v2", 14001, &["10.244.0.12"])
    }

    /// The pod whose proxy is told all this.
    pub fn workload(mut self, namespace: &str, service_account: &str) -> Self {
        let workload = Workload {
            namespace: namespace.to_owned(),
            pod: format!("{service_account}-v1-0"),
            service_account: service_account.to_owned(),
            ports: vec![InboundPort {
                port: 14001,
                protocol: Protocol::Http.into(),
                services: vec!["bookstore/bookstore".to_owned()],
            }],
            ..Workload::default()
        };
        self.put("workload", Resource::Workload(workload));
        self
    }

    pub fn put(&mut self, name: &str, resource: Resource) {
        self.set.seq += 1;
        let entry = Entry { version: self.set.seq, bytes: resource.encode().into() };
        self.set.resources.insert(ResourceName::new(resource.kind(), name), entry);
    }

    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings =
            Settings { mesh_name: "fsm".to_owned(), trust_domain: "cluster.local".to_owned(), ..Settings::default() };
        change(&mut settings);
        self.put("settings", Resource::Settings(settings));
        self
    }

    /// A service with one HTTP port and the host names that Kubernetes gives it.
    pub fn service(self, name: &str, vip: &str, port: u32) -> Self {
        self.service_speaking(name, vip, port, Protocol::Http)
    }

    /// `vip` may be empty: a headless service.
    pub fn service_speaking(mut self, name: &str, vip: &str, port: u32, protocol: Protocol) -> Self {
        let (namespace, bare) = name.split_once('/').unwrap();
        let service = Service {
            hosts: ["", ".svc", ".svc.cluster.local"]
                .iter()
                .map(|suffix| format!("{bare}.{namespace}{suffix}"))
                .chain([bare.to_owned()])
                .collect(),
            vips: if vip.is_empty() { Vec::new() } else { vec![vip.to_owned()] },
            ports: vec![ServicePort { port, name: "port".to_owned(), protocol: protocol.into() }],
        };
        self.put(name, Resource::Service(service));
        self
    }

    /// Pods of the service account that is named as the service's namespace.
    pub fn endpoints(self, service: &str, port: u32, addresses: &[&str]) -> Self {
        let namespace = service.split_once('/').unwrap().0;
        self.endpoints_as(service, port, addresses, &format!("spiffe://cluster.local/ns/{namespace}/sa/{namespace}"))
    }

    pub fn endpoints_as(mut self, service: &str, port: u32, addresses: &[&str], identity: &str) -> Self {
        let endpoints = addresses.iter().map(|address| Endpoint {
            address: (*address).to_owned(),
            identity: identity.to_owned(),
            pod: format!("{}-{address}", service.replace('.', "-")),
            ..Endpoint::default()
        });
        let slice = Endpoints {
            service: service.to_owned(),
            ports: vec![PortMapping { service_port: port, target_port: port }],
            endpoints: endpoints.collect(),
        };
        self.put(&format!("{service}-slice"), Resource::Endpoints(slice));
        self
    }

    pub fn split(mut self, name: &str, service: &str, backends: &[(&str, u32)], groups: &[&str]) -> Self {
        let backends =
            backends.iter().map(|(service, weight)| Backend { service: (*service).to_owned(), weight: *weight });
        let split = Split {
            service: service.to_owned(),
            backends: backends.collect(),
            route_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        self.put(name, Resource::Split(split));
        self
    }

    pub fn group(mut self, name: &str, matches: Vec<HttpMatch>) -> Self {
        self.put(name, Resource::RouteGroup(RouteGroup { matches }));
        self
    }

    pub fn tcp_route(mut self, name: &str, ports: &[u32]) -> Self {
        self.put(name, Resource::TcpRoute(TcpRoute { ports: ports.to_vec() }));
        self
    }

    pub fn target(mut self, name: &str, sources: &[&str], rules: Vec<InboundRule>) -> Self {
        let sources = sources.iter().map(|source| (*source).to_owned()).collect();
        self.put(name, Resource::InboundPolicy(InboundPolicy { sources, rules }));
        self
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::compile(self.set.clone()).unwrap()
    }
}

/// A match: name, path, methods separated by spaces, headers.
pub fn route(name: &str, path: &str, methods: &str, headers: &[(&str, &str)]) -> HttpMatch {
    let headers =
        headers.iter().map(|(name, value)| HeaderMatch { name: (*name).to_owned(), value_regex: (*value).to_owned() });
    HttpMatch {
        name: name.to_owned(),
        path_regex: path.to_owned(),
        methods: methods.split_whitespace().map(str::to_owned).collect(),
        headers: headers.collect(),
    }
}

pub fn http(group: &str, matches: &[&str]) -> InboundRule {
    let matches = matches.iter().map(|name| (*name).to_owned()).collect();
    InboundRule { route: Some(Route::Http(RouteGroupRef { group: group.to_owned(), matches })) }
}

pub fn tcp(route: &str) -> InboundRule {
    InboundRule { route: Some(Route::Tcp(route.to_owned())) }
}

pub fn outbound(destination: &str) -> Connection {
    Connection::Outbound { destination: destination.parse().unwrap() }
}

pub fn inbound(port: u16, peer: &str) -> Connection {
    let peer = (!peer.is_empty()).then(|| peer.parse::<SpiffeId>().unwrap());
    Connection::Inbound { port, peer }
}

/// A request as text: `GET host/path name:value name:value`, all but the method and the path optional.
pub struct Request {
    method: String,
    authority: String,
    path: String,
    headers: HeaderMap,
}

impl Request {
    pub fn new(text: &str) -> Self {
        let mut words = text.split_whitespace();
        let method = words.next().unwrap().to_owned();
        let target = words.next().unwrap();
        let (authority, path) = target.split_at(target.find('/').unwrap());
        let headers = words.map(|word| {
            let (name, value) = word.split_once(':').unwrap();
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        });
        Self { method, authority: authority.to_owned(), path: path.to_owned(), headers: headers.collect() }
    }

    pub fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
            flaw: None,
        }
    }
}

/// The decision as a sentence; `request` empty: an opaque connection.
pub fn sentence(snapshot: &Snapshot, connection: &Connection, request: &str) -> String {
    with_decision(snapshot, connection, request, |decision| decision.to_string())
}

pub fn with_decision<T>(
    snapshot: &Snapshot,
    connection: &Connection,
    request: &str,
    look: impl FnOnce(Decision<'_>) -> T,
) -> T {
    if request.is_empty() {
        return look(decide(snapshot, connection, None));
    }
    let request = Request::new(request);
    look(decide(snapshot, connection, Some(&request.head())))
}

pub fn name(kind: Kind, name: &str) -> ResourceName {
    ResourceName::new(kind, name)
}
