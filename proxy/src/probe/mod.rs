//! Probes of the application, relayed: the kubelet is outside the mesh and cannot reach the application itself.
//!
//! The injector points a pod's HTTP probes to the ports here, with the original port and path in headers. Only whether
//! the application is well is told, by the status; its body is for the mesh only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};

use crate::accept::Accepted;
use crate::context::Context;
use crate::headers;
use crate::serve::{Answer, Opening, serve_http1};
use crate::stream::Body;
use crate::upstream::Peer;

/// The path of relayed probes.
pub const RELAY_PATH: &str = "/fsm-healthcheck";
/// The path of the proxy's own readiness: 200 as soon as it has a certificate and a configuration.
pub const READY_PATH: &str = "/fsm-ready";
/// The original port and path of an HTTP probe, and the port of a TCP one.
pub const HTTP_PORT: HeaderName = HeaderName::from_static("original-http-port");
pub const HTTP_PATH: HeaderName = HeaderName::from_static("original-http-path");
pub const TCP_PORT: HeaderName = HeaderName::from_static("original-tcp-port");

/// The kubelet has its own, shorter time-out.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one connection of a prober.
pub async fn connection(context: Arc<Context>, accepted: Accepted) {
    let Accepted { stream, permit: _permit, .. } = accepted;
    let called = stream.local_addr().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip());
    let answer = Probe { context: Arc::clone(&context), called };
    serve_http1(stream, answer, Some(context.limits.head_timeout), &context.limits, &context.drain).await;
}

#[derive(Clone)]
struct Probe {
    context: Arc<Context>,
    called: IpAddr,
}

/// What a probe asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Ready,
    Http { port: u16, path: String },
    Tcp { port: u16 },
}

impl Asked {
    fn from(parts: &Parts) -> Result<Self, String> {
        match parts.uri.path() {
            READY_PATH => return Ok(Self::Ready),
            RELAY_PATH => {}
            other => return Err(format!("{other} is not served here; probes come to {RELAY_PATH}")),
        }
        if parts.method != Method::GET {
            return Err("a probe is a GET request".to_owned());
        }
        let text = |name: &HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let port = |name: &HeaderName| {
            text(name).map(|port| port.parse().map_err(|_| format!("{name}: \"{port}\" is not a port")))
        };
        if let Some(port) = port(&TCP_PORT) {
            return Ok(Self::Tcp { port: port? });
        }
        match (port(&HTTP_PORT), text(&HTTP_PATH)) {
            (Some(port), path) => Ok(Self::Http { port: port?, path: path.unwrap_or("/").to_owned() }),
            (None, _) => Err(format!("a probe must say in {HTTP_PORT} or {TCP_PORT} what it is for")),
        }
    }
}

impl Probe {
    async fn http(&self, port: u16, path: &str, mut head: Parts) -> Result<StatusCode, String> {
        head.uri = path.parse().map_err(|_| format!("{HTTP_PATH}: \"{path}\" is not a path"))?;
        headers::strip_hop_by_hop(&mut head.headers);
        for name in [HTTP_PORT, HTTP_PATH] {
            head.headers.remove(name);
        }
        let address = self.application(port)?;
        // The prober names the port that it called; the application knows its own.
        let named = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = match named.and_then(|host| host.parse::<http::uri::Authority>().ok()) {
            Some(host) if !matches!(host.port_u16(), None | Some(15901..=15903)) => host.to_string(),
            Some(host) => format!("{}:{port}", host.host()),
            None => address.to_string(),
        };
        if let Ok(host) = HeaderValue::from_str(&host) {
            head.headers.insert(HOST, host);
        }
        let request = Box::new(Request::from_parts(head, Body::empty()));
        let peer = Peer::plain(address);
        match self.context.upstream.request(peer, DIAL_TIMEOUT, request).await {
            // A redirect counts as well for the kubelet, and it could not follow it to the application.
            Ok(response) if response.status().is_redirection() => Ok(StatusCode::OK),
            Ok(response) => Ok(response.status()),
            Err(failed) => Err(failed.error.to_string()),
        }
    }

    async fn tcp(&self, port: u16) -> Result<StatusCode, String> {
        let address = self.application(port)?;
        let dialled = self.context.upstream.tcp(address, DIAL_TIMEOUT).await;
        dialled.map(|_| StatusCode::OK).map_err(|error| error.to_string())
    }

    fn application(&self, port: u16) -> Result<SocketAddr, String> {
        if self.context.own_ports.contains(&port) {
            return Err(format!("port {port} is the proxy's own"));
        }
        let snapshot = self.context.snapshots.load();
        let pod_ip = snapshot.as_ref().is_some_and(|snapshot| snapshot.settings().dial_pod_ip);
        let ip = if pod_ip { self.context.pod_ip.unwrap_or(self.called) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        Ok(SocketAddr::new(ip, port))
    }

    fn readiness(&self) -> Result<StatusCode, String> {
        if self.context.is_ready() {
            return Ok(StatusCode::OK);
        }
        Err("the proxy waits for its certificate and its configuration from the controller".to_owned())
    }
}

impl Answer for Probe {
    const WEBSOCKETS: bool = false;

    async fn request(self, request: Box<Request<Body>>) -> Response<Body> {
        let (parts, _body) = request.into_parts();
        let answered = match Asked::from(&parts) {
            Ok(Asked::Ready) => self.readiness(),
            Ok(Asked::Http { port, path }) => self.http(port, &path, parts).await,
            Ok(Asked::Tcp { port }) => self.tcp(port).await,
            Err(text) => return reply(StatusCode::BAD_REQUEST, text),
        };
        match answered {
            Ok(status) => reply(status, String::new()),
            Err(text) => reply(StatusCode::SERVICE_UNAVAILABLE, text + "\n"),
        }
    }

    async fn connect(self, _head: Parts, opening: Opening) {
        opening.unsupported();
    }
}

fn reply(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(if text.is_empty() { Body::empty() } else { Body::text(text) });
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str, headers: &[(&str, &str)]) -> Result<Asked, String> {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Asked::from(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_headers_say_what_is_probed() {
        assert_eq!(asked("/fsm-ready", &[]), Ok(Asked::Ready));
        let http = asked("/fsm-healthcheck", &[("Original-Http-Port", "8080"), ("Original-Http-Path", "/live?x=1")]);
        assert_eq!(http, Ok(Asked::Http { port: 8080, path: "/live?x=1".into() }));
        assert_eq!(asked("/fsm-healthcheck", &[("Original-Tcp-Port", "5432")]), Ok(Asked::Tcp { port: 5432 }));
        let wrong = asked("/fsm-healthcheck", &[("Original-Http-Port", "http")]).unwrap_err();
        assert_eq!(wrong, "original-http-port: \"http\" is not a port");
        assert!(asked("/fsm-healthcheck", &[]).is_err());
        assert!(asked("/live", &[]).is_err());
    }
}
