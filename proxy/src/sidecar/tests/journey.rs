//! What replay says of a request is what two sidecars do with it, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use fsm_proxy_config::proto::{self, Protocol};
use fsm_proxy_config::{Asked, Journey, Resource, Snapshot};
use http::Request;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::app::{self, describe};
use super::mesh::{CLIENT, Mesh, Pair, Resources, SERVER, VIP, http_policy};

/// A request of HTTP/1.1 without a body.
#[derive(Clone, Debug)]
struct Question {
    method: &'static str,
    path: &'static str,
    host: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

impl Question {
    fn text(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{} {} HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", self.method, self.path, self.host)
    }

    fn asked(&self) -> Asked {
        let request = Request::builder().method(self.method).uri(self.path).header("host", self.host);
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Asked { destination: VIP, head: Some(request.body(()).unwrap().into_parts().0) }
    }
}

fn questions() -> impl Strategy<Value = Question> {
    let header = (
        select(&["x-a", "connection", "te", "upgrade", "fsm-port", "cookie", "keep-alive"][..]),
        select(&["1", "close, x-a", "host", "upgrade", "websocket", "trailers"][..]),
    );
    (
        select(&["GET", "POST", "DELETE"][..]),
        select(&["/books/1", "/books", "/admin", "/", "/admin/../books?x=1", "/books%2f1"][..]),
        select(&["store", "store.shop:80", "first", "v2.example"][..]),
        prop::collection::vec(header, 0..4),
    )
        .prop_map(|(method, path, host, headers)| Question { method, path, host, headers })
}

/// What the server's proxy is told of who may do what.
fn at_the_server(number: usize, resources: &Resources) -> Resources {
    let restricted = http_policy(resources.clone());
    let group = |name: &str, methods: &[&str], headers: &[(&str, &str)]| {
        let header =
            |(name, value): &(&str, &str)| proto::HeaderMatch { name: (*name).into(), value_regex: (*value).into() };
        Resource::RouteGroup(proto::RouteGroup {
            matches: vec![proto::HttpMatch {
                name: name.into(),
                path_regex: String::new(),
                methods: methods.iter().map(|method| (*method).to_owned()).collect(),
                headers: headers.iter().map(header).collect(),
            }],
        })
    };
    match number {
        0 => resources.clone(),
        1 => resources.clone().settings(|settings| settings.permissive = false),
        2 => restricted,
        3 => restricted.with("shop/routes", group("host", &[], &[("host", "v2.*|store.*")])),
        _ => restricted.with("shop/routes", group("header", &["GET"], &[("x-a", "1|upgrade"), ("cookie", ".*")])),
    }
}

/// What the client's proxy is told of where to go.
fn at_the_client(number: usize, resources: &Resources, endpoint: SocketAddr) -> Resources {
    let split = |weight: u32, groups: &[&str]| {
        let backends = vec![
            proto::Backend { service: "shop/first".into(), weight },
            proto::Backend { service: "shop/second".into(), weight: 0 },
        ];
        let route_groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let split = proto::Split { service: "shop/store".into(), backends, route_groups };
        let first = resources.clone().service("shop/first", "", Protocol::Http);
        http_policy(first.endpoints("shop/first", &[endpoint], SERVER)).with("shop/split", Resource::Split(split))
    };
    match number {
        0 => resources.clone(),
        1 => resources.clone().endpoints("shop/store", &[], SERVER),
        2 => split(1, &[]),
        3 => split(0, &[]),
        _ => split(0, &["shop/routes"]),
    }
}

/// Status and kind of a refusal, or nothing if the application is asked.
type Outcome = Option<(u64, String)>;

/// What replay says. There is one endpoint at most, so there is one answer.
fn foretold(client: &Snapshot, server: &Arc<Snapshot>, asked: &Asked) -> Outcome {
    let journey = Journey::follow(client, asked, |_| Some(Arc::clone(server)));
    let refusal = |decision: &Value| {
        let kind = decision["kind"].as_str()?;
        Some((decision["status"].as_u64()?, kind.to_owned()))
    };
    let at_server = journey.endpoints().find_map(|(_, endpoint)| match &endpoint.server {
        fsm_proxy_config::journey::Server::Judged(told) => refusal(&told.decision),
        other => Some((0, other.to_string())),
    });
    refusal(&journey.client.decision).or(at_server)
}

/// What happens.
async fn seen(pair: &Pair, question: &Question) -> Outcome {
    let mut stream = TcpStream::connect(pair.client.outbound()).await.unwrap();
    stream.write_all(question.text().as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{:?}", String::from_utf8_lossy(&answer));
    }
    let head = String::from_utf8(answer).unwrap();
    if head.contains("\r\nx-app: describe\r\n") {
        return None;
    }
    let kind = head.lines().find_map(|line| line.strip_prefix("fsm-denied: ")).unwrap_or_else(|| panic!("{head}"));
    Some((head[9..12].parse().unwrap(), kind.to_owned()))
}

#[test]
fn a_journey_is_what_two_sidecars_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let app = runtime.block_on(app::http1(describe));
    let mesh = Mesh::new();
    let pair = mesh.pair(app.address, Protocol::Http);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let cases = (questions(), 0..5_usize, 0..5_usize);
    let outcome = runner.run(&cases, |(question, client, server)| {
        pair.client.configure(&at_the_client(client, &pair.client_resources, pair.endpoint));
        pair.server.configure(&at_the_server(server, &pair.server_resources));
        let load = |pod: &super::mesh::Pod| pod.sources.snapshots.load().clone().unwrap();
        let foretold = foretold(&load(&pair.client), &load(&pair.server), &question.asked());
        let seen = runtime.block_on(seen(&pair, &question));
        prop_assert_eq!(foretold, seen, "as {}", CLIENT);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
