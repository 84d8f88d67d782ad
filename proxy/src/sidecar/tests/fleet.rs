//! A client pod, and server pods with an application each, behind one service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fsm_proxy_config::{Resource, proto};
use http::{Request, Response};
use hyper::body::Incoming;

use super::app::{self, AppBody};
use super::mesh::{CLIENT, Mesh, Pod, Resources, SERVER, pod_ip};

const SLICES: [&str; 4] = ["shop/store-a", "shop/store-b", "shop/store-c", "shop/store-d"];

/// The client, the servers, and what the client was told.
pub struct Fleet {
    pub client: Pod,
    _servers: Vec<Pod>,
    pub resources: Resources,
    /// Applications by number, as the client knows them.
    pub endpoints: Vec<SocketAddr>,
    /// Requests that each application got.
    pub requests: Vec<Arc<AtomicUsize>>,
}

impl Fleet {
    /// `count` servers; the application with number `n` answers as `answer(n, request)` says.
    pub async fn new<F, Fut>(count: usize, policy: proto::TrafficPolicy, answer: F) -> Self
    where
        F: Fn(usize, Request<Incoming>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Response<AppBody>> + Send + 'static,
    {
        let mesh = Mesh::new();
        let mut resources = Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", proto::Protocol::Http);
        let (mut servers, mut endpoints, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        for (number, slice_name) in SLICES.into_iter().enumerate().take(count) {
            let (answer, counted) = (answer.clone(), Arc::new(AtomicUsize::new(0)));
            requests.push(Arc::clone(&counted));
            let app = app::http1(move |request| {
                counted.fetch_add(1, Ordering::SeqCst);
                answer(number, request)
            })
            .await;
            let address = SocketAddr::new(pod_ip(), app.address.port());
            endpoints.push(address);
            let told = Resources::new("store", &[(address.port(), proto::Protocol::Http)]);
            servers.push(mesh.pod(SERVER, address.ip(), &told));
            resources = resources.with(slice_name, slice(address, |_| {}));
        }
        let resources = resources.with("shop/store", Resource::TrafficPolicy(policy));
        let client = mesh.pod(CLIENT, pod_ip(), &resources);
        Self { client, _servers: servers, resources, endpoints, requests }
    }

    /// Changes what the client is told of the endpoint with this number.
    pub fn change(&mut self, number: usize, change: impl FnOnce(&mut proto::Endpoint)) {
        self.resources = self.resources.clone().with(SLICES[number], slice(self.endpoints[number], change));
        self.client.configure(&self.resources);
    }

    /// Replaces the policy of the service.
    pub fn apply(&mut self, policy: proto::TrafficPolicy) {
        self.resources = self.resources.clone().with("shop/store", Resource::TrafficPolicy(policy));
        self.client.configure(&self.resources);
    }

    /// Takes the endpoint with this number away from the client's configuration.
    pub fn remove(&mut self, number: usize) {
        let nothing = proto::Endpoints { service: "shop/store".into(), ..Default::default() };
        self.resources = self.resources.clone().with(SLICES[number], Resource::Endpoints(nothing));
        self.client.configure(&self.resources);
    }

    /// How many requests each application got so far.
    pub fn counts(&self) -> Vec<usize> {
        self.requests.iter().map(|count| count.load(Ordering::SeqCst)).collect()
    }
}

fn slice(address: SocketAddr, change: impl FnOnce(&mut proto::Endpoint)) -> Resource {
    let mut endpoint = proto::Endpoint {
        address: address.ip().to_string(),
        identity: SERVER.into(),
        pod: "shop/store-1".into(),
        ..Default::default()
    };
    change(&mut endpoint);
    Resource::Endpoints(proto::Endpoints {
        service: "shop/store".into(),
        ports: vec![proto::PortMapping { service_port: 80, target_port: address.port().into() }],
        endpoints: vec![endpoint],
    })
}

/// The application's own number.
pub async fn number(number: usize, _request: Request<Incoming>) -> Response<AppBody> {
    Response::new(app::text(number.to_string()))
}
