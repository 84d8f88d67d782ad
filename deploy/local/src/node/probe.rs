//! Probes: liveness, readiness and startup, sent from the node to the pod's address as the kubelet sends them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{health, insecure};
use crate::net::Netns;

/// As the kubelet: what leads further is broken.
const MAX_REDIRECTS: usize = 10;

/// Until a container is ready for the first time it is looked at at least this often, so that a start is not slowed down by
/// the probe's period (a documented difference from the kubelet).
const EAGER: Duration = Duration::from_millis(500);

/// What a probe does.
#[derive(Debug, Clone, PartialEq)]
pub enum Check {
    Http(HTTPGetAction, SocketAddr),
    Tcp(SocketAddr),
    Exec(Vec<String>),
    Grpc(String, SocketAddr),
}

/// When it does it, and what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("{0} probe names port \"{1}\", which the container does not have")]
    Port(&'static str, String),
    #[error("{0} probe has no action; give it httpGet, tcpSocket, grpc or exec")]
    Nothing(&'static str),
    #[error("{0} probe: host {1} is not an address; leave it out to probe the pod")]
    Host(&'static str, String),
}

/// Understands a probe of a container whose pod has the address `ip`.
pub fn parse(
    kind: &'static str,
    probe: &Probe,
    container: &Container,
    ip: IpAddr,
) -> Result<(Check, Timing), ProbeError> {
    let target = |port: &IntOrString, host: Option<&String>| {
        let number = match port {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => {
                let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
                named.and_then(|p| u16::try_from(p.container_port).ok()).or_else(|| name.parse().ok())
            }
        };
        let shown = || match port {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        };
        let number = number.ok_or_else(|| ProbeError::Port(kind, shown()))?;
        let ip = match host.filter(|h| !h.is_empty()) {
            None => ip,
            Some(host) => host.parse().map_err(|_| ProbeError::Host(kind, host.clone()))?,
        };
        Ok(SocketAddr::new(ip, number))
    };
    let check = if let Some(http) = &probe.http_get {
        Check::Http(http.clone(), target(&http.port, http.host.as_ref())?)
    } else if let Some(tcp) = &probe.tcp_socket {
        Check::Tcp(target(&tcp.port, tcp.host.as_ref())?)
    } else if let Some(exec) = &probe.exec {
        Check::Exec(exec.command.clone().unwrap_or_default())
    } else if let Some(grpc) = &probe.grpc {
        Check::Grpc(grpc.service.clone().unwrap_or_default(), target(&IntOrString::Int(grpc.port), None)?)
    } else {
        return Err(ProbeError::Nothing(kind));
    };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
    };
    let count = |value: Option<i32>, default: u32| {
        value.and_then(|v| u32::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default)
    };
    let timing = Timing {
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        success_threshold: count(probe.success_threshold, 1),
        failure_threshold: count(probe.failure_threshold, 3),
    };
    Ok((check, timing))
}

/// Asks once, over the network. `exec` is the container's business, not the network's.
pub async fn ask(check: &Check, node: &Netns, timeout: Duration) -> Result<(), String> {
    let asked = async {
        match check {
            Check::Tcp(addr) => node.dial(*addr).await.map(drop).map_err(|e| format!("dial tcp {addr}: {e}")),
            Check::Http(action, addr) => get(action, *addr, node).await,
            Check::Grpc(service, addr) => {
                let stream = node.dial(*addr).await.map_err(|e| format!("dial tcp {addr}: {e}"))?;
                health::check(stream, &addr.to_string(), service).await
            }
            Check::Exec(_) => Err("exec probes run in the container".to_owned()),
        }
    };
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}

async fn get(action: &HTTPGetAction, addr: SocketAddr, node: &Netns) -> Result<(), String> {
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let mut path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    for _ in 0..=MAX_REDIRECTS {
        let answer = get_once(action, addr, &path, node).await?;
        let status = answer.status();
        let next = answer.headers().get("location").and_then(|l| l.to_str().ok());
        match next.filter(|_| status.is_redirection()).and_then(|next| same_server(next, addr)) {
            Some(next) => path = next,
            // A redirect to elsewhere counts as success, and is not followed.
            None if status.is_success() || status.is_redirection() => return Ok(()),
            None => return Err(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
        }
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

/// The path a redirect leads to, if it is one of the server asked.
fn same_server(location: &str, addr: SocketAddr) -> Option<String> {
    let uri: hyper::Uri = location.parse().ok()?;
    let host = uri.host().map(|h| h.trim_matches(['[', ']']).to_owned());
    let path = uri.path_and_query().map(ToString::to_string).filter(|p| p.starts_with('/'))?;
    (host.is_none_or(|h| h == addr.ip().to_string()) && uri.port_u16().is_none_or(|p| p == addr.port())).then_some(path)
}

async fn get_once(
    action: &HTTPGetAction,
    addr: SocketAddr,
    path: &str,
    node: &Netns,
) -> Result<hyper::Response<hyper::body::Incoming>, String> {
    let stream = node.dial(addr).await.map_err(|e| format!("dial tcp {addr}: {e}"))?;
    let https = action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
    let headers = || action.http_headers.iter().flatten();
    let mut request = Request::get(path);
    for (name, value) in [("user-agent", "kube-probe/1.36"), ("accept", "*/*"), ("host", &addr.to_string())] {
        if !headers().any(|h| h.name.eq_ignore_ascii_case(name)) {
            request = request.header(name, value);
        }
    }
    for header in headers() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.header("connection", "close").body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    if https {
        exchange(insecure::connect(stream, addr.ip()).await?, request).await
    } else {
        exchange(stream, request).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<hyper::Response<hyper::body::Incoming>, String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    // Moves the bytes of the exchange; it ends with `sender` at the latest.
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|e| e.to_string());
    driver.abort();
    answer
}

/// Answers of the same kind in a row.
#[derive(Debug, Default)]
pub struct Streak {
    success: bool,
    length: u32,
}

impl Streak {
    /// Takes an answer; returns the verdict once the answers agree often enough, and again with each further one.
    pub fn take(&mut self, success: bool, timing: &Timing) -> Option<bool> {
        self.length = if success == self.success { self.length.saturating_add(1) } else { 1 };
        self.success = success;
        let needed = if success { timing.success_threshold } else { timing.failure_threshold };
        (self.length >= needed).then_some(success)
    }
}

impl Timing {
    /// The same patience, measured in shorter steps.
    #[must_use]
    pub fn eager(mut self) -> Self {
        let patience = self.period.saturating_mul(self.failure_threshold);
        self.period = self.period.min(EAGER);
        self.failure_threshold =
            u32::try_from(patience.as_millis().div_ceil(self.period.as_millis().max(1))).unwrap_or(u32::MAX);
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(probe: Value) -> Result<(Check, Timing), ProbeError> {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        let container = serde_json::from_value(container).unwrap();
        parse("readiness", &serde_json::from_value(probe).unwrap(), &container, "10.244.0.9".parse().unwrap())
    }

    #[test]
    fn a_port_is_a_number_or_one_of_the_containers_names() {
        let check = |port: Value| parsed(json!({"tcpSocket": {"port": port}})).map(|(check, _)| check);
        assert_eq!(check(json!("web")), Ok(Check::Tcp("10.244.0.9:8080".parse().unwrap())));
        assert_eq!(check(json!(15902)), Ok(Check::Tcp("10.244.0.9:15902".parse().unwrap())));
        assert_eq!(check(json!("none")).unwrap_err(), ProbeError::Port("readiness", "none".into()));
        let (grpc, _) = parsed(json!({"grpc": {"port": 1, "service": "s"}})).unwrap();
        assert_eq!(grpc, Check::Grpc("s".into(), "10.244.0.9:1".parse().unwrap()));
    }

    #[test]
    fn redirects_are_followed_on_the_same_server_only() {
        let to = |location| same_server(location, "10.244.0.9:8080".parse().unwrap());
        assert_eq!(to("/next?a=b").as_deref(), Some("/next?a=b"));
        assert_eq!(to("http://10.244.0.9:8080/x").as_deref(), Some("/x"));
        assert_eq!((to("http://example.com/"), to("http://10.244.0.9:1/"), to("")), (None, None, None));
    }

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let (_, timing) =
            parsed(json!({"tcpSocket": {"port": 1}, "failureThreshold": 2, "successThreshold": 2})).unwrap();
        let mut streak = Streak::default();
        let verdicts: Vec<_> =
            [true, false, true, true, false, false, false].into_iter().map(|a| streak.take(a, &timing)).collect();
        assert_eq!(verdicts, [None, None, None, Some(true), None, Some(false), Some(false)]);
    }

    #[test]
    fn eagerness_keeps_the_patience() {
        let (_, timing) =
            parsed(json!({"tcpSocket": {"port": 1}, "periodSeconds": 3, "failureThreshold": 10})).unwrap();
        let eager = timing.eager();
        assert_eq!((eager.period, eager.failure_threshold), (EAGER, 60));
    }
}
