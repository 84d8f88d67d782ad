//! What is told of requests: lines of the access log, and spans.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use fsm_proxy_config::proto::{self, Protocol};
use http::Request;
use http_body_util::Full;
use serde_json::Value;

use super::app::{self, describe};
use super::client::{collect, connect1, fetch};
use super::mesh::{CLIENT, Mesh, Pair, Pod, Resources, SERVER, pod_ip};
use crate::account::Output;
use crate::telemetry::collector::Collector;

pub(super) fn all(format: proto::LogFormat) -> Option<proto::AccessLog> {
    Some(proto::AccessLog { format: format.into(), sampled_per_million: 1_000_000, errors_always: true })
}

pub(super) fn tracing(collector: &Collector) -> Option<proto::Tracing> {
    Some(proto::Tracing { endpoint: collector.endpoint.clone(), sampled_per_million: 1_000_000 })
}

/// A pod whose access log the test reads.
fn logged(mesh: &Mesh, spiffe: &str, ip: std::net::IpAddr, resources: &Resources) -> (Pod, Lines) {
    let (written, lines) = channel();
    let written = Mutex::new(written);
    let pod = mesh.pod_with(spiffe, ip, resources, |config| {
        config.access_log = Output::to(move |text| {
            for line in String::from_utf8(text.to_vec()).unwrap().lines() {
                let _ = written.lock().unwrap().send(line.to_owned());
            }
            Ok(())
        });
    });
    (pod, Lines(lines))
}

pub(super) struct Lines(Receiver<String>);

impl Lines {
    fn next(&self) -> String {
        tokio::task::block_in_place(|| self.0.recv().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.next()).unwrap()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.try_recv().is_err()
    }
}

/// Two pods whose access logs the test reads.
pub(super) fn pair(
    mesh: &Mesh,
    application: std::net::SocketAddr,
    protocol: Protocol,
    change: impl Fn(Resources) -> Resources,
) -> (Pair, Lines, Lines) {
    let ip = pod_ip();
    let endpoint = std::net::SocketAddr::new(ip, application.port());
    let server_resources = change(Resources::new("store", &[(application.port(), protocol)]));
    let client_resources = change(Resources::new("buyer", &[]).service("shop/store", "10.96.0.1", protocol).endpoints(
        "shop/store",
        &[endpoint],
        SERVER,
    ));
    let (server, server_lines) = logged(mesh, SERVER, ip, &server_resources);
    let (client, client_lines) = logged(mesh, CLIENT, pod_ip(), &client_resources);
    (Pair { client, server, client_resources, server_resources, endpoint }, client_lines, server_lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sidecars_write_a_request_down() {
    let app = app::http1(describe).await;
    let change =
        |resources: Resources| resources.settings(|settings| settings.access_log = all(proto::LogFormat::Json));
    let (pair, client, server) = pair(&Mesh::new(), app.address, Protocol::Http, change);
    let mut send = connect1(pair.client.outbound()).await;
    let request = Request::post("/books?n=1")
        .header("host", "store")
        .header("user-agent", "test \"1\"")
        .header("x-request-id", "r-1")
        .body(Full::new(Bytes::from_static(b"hello")));
    let answered = collect(send.send_request(request.unwrap()).await.unwrap()).await;
    let line = client.json();
    for (field, expected) in [
        ("direction", "outbound"),
        ("protocol", "HTTP/1.1"),
        ("method", "POST"),
        ("path", "/books?n=1"),
        ("authority", "store"),
        ("service", "shop/store"),
        ("upstream_cluster", "shop/store"),
        ("upstream_pod", "shop/store-1"),
        ("user_agent", "test \"1\""),
        ("request_id", "r-1"),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }
    assert_eq!(line["upstream_host"], pair.endpoint.to_string());
    assert_eq!((&line["response_code"], &line["bytes_received"]), (&Value::from(200), &Value::from(5)));
    assert_eq!(line["bytes_sent"], answered.text.len());
    assert!(line.get("trace_id").is_none());
    let line = server.json();
    assert_eq!(
        (&line["direction"], &line["source"], &line["bytes_received"]),
        (&"inbound".into(), &CLIENT.into(), &5.into())
    );
    assert!(answered.headers.keys().all(|name| !name.as_str().starts_with("trace")));

    // Another format, and none, hold from the next request on.
    pair.client.configure(
        &pair.client_resources.clone().settings(|settings| settings.access_log = all(proto::LogFormat::Text)),
    );
    pair.server.configure(&pair.server_resources.clone().settings(|settings| settings.access_log = None));
    fetch(pair.client.outbound(), "/books").await;
    let line = client.next();
    assert!(line.contains("] outbound \"GET /books HTTP/1.1\" 200 - 0 "), "{line}");
    assert!(server.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_written_even_if_nothing_else_is() {
    let app = app::http1(describe).await;
    let errors = Some(proto::AccessLog { format: 0, sampled_per_million: 0, errors_always: true });
    let change = |resources: Resources| resources.settings(|settings| settings.access_log = errors);
    let (pair, client, server) = pair(&Mesh::new(), app.address, Protocol::Http, change);
    fetch(pair.client.outbound(), "/books/1").await;
    pair.server.configure(&pair.server_resources.clone().settings(|settings| settings.permissive = false));
    fetch(pair.client.outbound(), "/books/2").await;
    let line = server.json();
    assert_eq!(
        (&line["path"], &line["response_code"], &line["response_code_details"]),
        (&"/books/2".into(), &403.into(), &"no_policy".into())
    );
    assert!(line["details"].as_str().unwrap().contains("no TrafficTarget allows"), "{line}");
    let line = client.json();
    assert_eq!((&line["path"], &line["response_code_details"]), (&"/books/2".into(), &"no_policy".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_through_both_sidecars() {
    let mut collector = Collector::start().await;
    let app = app::http1(|request| async move {
        let parent = request.headers()["traceparent"].to_str().unwrap().to_owned();
        http::Response::new(app::text(parent))
    })
    .await;
    let change = |resources: Resources| {
        resources.settings(|settings| {
            settings.tracing = tracing(&collector);
            settings.access_log = all(proto::LogFormat::Json);
        })
    };
    let (pair, client, server) = pair(&Mesh::new(), app.address, Protocol::Http, change);
    // The application says nothing of a trace.
    let told = fetch(pair.client.outbound(), "/books?id=1").await.text;
    let spans = collector.spans(2).await;
    let of = |kind: i32| spans.iter().find(|(_, span)| span.kind == kind).unwrap();
    let ((at_client, outbound), (at_server, inbound)) = (of(3), of(2));
    assert!(at_client.contains("buyer") && at_server.contains("store"), "{at_client}, {at_server}");
    assert_eq!(outbound.trace_id, inbound.trace_id);
    assert_eq!((outbound.parent_span_id.len(), &inbound.parent_span_id), (0, &outbound.span_id));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(told, format!("00-{}-{}-01", hex(&inbound.trace_id), hex(&inbound.span_id)));
    assert!(outbound.start_time_unix_nano <= inbound.start_time_unix_nano && outbound.end_time_unix_nano > 0);
    let said = format!("{:?}", outbound.attributes);
    for part in [
        "http.request.method",
        "\"GET\"",
        "http.response.status_code",
        "IntValue(200)",
        "\"/books\"",
        "fsm.backend",
        "shop/store",
    ] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }
    for line in [client.json(), server.json()] {
        assert_eq!(line["trace_id"], hex(&inbound.trace_id));
    }

    // A trace of the application's goes on, and a refusal is told with its reason.
    pair.server.configure(&pair.server_resources.clone().settings(|settings| {
        settings.permissive = false;
        settings.tracing = tracing(&collector);
    }));
    let mut send = connect1(pair.client.outbound()).await;
    let request =
        Request::get("/").header("host", "store").header("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
    collect(send.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()).await;
    let spans = collector.spans(2).await;
    for (_, span) in &spans {
        assert_eq!(hex(&span.trace_id), "80f198ee56343ba864fe8b2a57d3eff7");
        assert!(format!("{:?}", span.attributes).contains("no_policy"), "{span:?}");
    }
    let outbound = spans.iter().find(|(_, span)| span.kind == 3).unwrap();
    assert_eq!(hex(&outbound.1.parent_span_id), "e457b5a2e4d86bd1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tracing_headers_pass_as_they_came() {
    let app = app::http1(|request| async move {
        let told = ["traceparent", "tracestate"].map(|name| request.headers()[name].to_str().unwrap().to_owned());
        http::Response::new(app::text(format!("{} of {}", told.join(" "), request.headers().len())))
    })
    .await;
    let pair = Mesh::new().pair(app.address, Protocol::Http);
    let mut send = connect1(pair.client.outbound()).await;
    let request = Request::get("/").header("host", "store").header("traceparent", "odd").header("tracestate", "a=b");
    let answered = collect(send.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()).await;
    assert_eq!(answered.text, "odd a=b of 3");
}
