//! `spec.observability`.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObservabilitySpec {
    pub access_log: AccessLogSpec,
    /// `trace`, `debug`, `info`, `warn`, `error`, `fatal`, `panic` or `disabled`; empty means info.
    pub fsm_log_level: String,
    pub remote_logging: RemoteLoggingSpec,
    pub tracing: TracingSpec,
}

/// What sidecars write to their standard output. Not a field of FSM's own: its sidecars can only send entries to a server
/// ([`RemoteLoggingSpec`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AccessLogSpec {
    pub enable: bool,
    /// `json` or `text`; empty means json.
    pub format: String,
    /// 0 to 1, as text; empty means 1.
    pub sampled_fraction: String,
    /// What ended with an error is written whether it is sampled or not.
    pub always_log_errors: bool,
}

impl Default for AccessLogSpec {
    fn default() -> Self {
        Self { enable: false, format: String::new(), sampled_fraction: String::new(), always_log_errors: true }
    }
}

/// Millionths of a fraction that is written as text, as FSM has it; empty means 1.
pub fn millionths(fraction: &str) -> Option<u32> {
    let fraction: f64 = if fraction.is_empty() { 1.0 } else { fraction.parse().ok()? };
    (0.0..=1.0).contains(&fraction).then(|| (fraction * 1e6).round() as u32)
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RemoteLoggingSpec {
    /// The server's host.
    pub address: String,
    /// A credential; see `secret_name`.
    pub authorization: String,
    pub enable: bool,
    /// Path and query.
    pub endpoint: String,
    /// What FSM does to headers of traces.
    pub level: i64,
    /// 0 means 80.
    pub port: i64,
    /// 0 to 1, as text; empty means 1.
    pub sampled_fraction: String,
    /// Where FSM has credentials. None are sent: they would stand in the log and in every sidecar's configuration.
    pub secret_name: String,
}

impl RemoteLoggingSpec {
    /// Where sidecars post entries; none: this makes no URL.
    pub fn url(&self) -> Option<String> {
        let port = Some(self.port).filter(|port| (0..=65_535).contains(port))?;
        let of_url = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte);
        if self.address.is_empty() || !is_host(&self.address) || !self.endpoint.bytes().all(of_url) {
            return None;
        }
        let slash = if self.endpoint.starts_with('/') { "" } else { "/" };
        Some(format!("{}{slash}{}", http_at(&self.address, if port == 0 { 80 } else { port }), self.endpoint))
    }
}

/// Whether it is made of what names are made of, or is an address.
pub(super) fn is_host(address: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    address.bytes().all(of_name) || address.parse::<Ipv6Addr>().is_ok()
}

fn http_at(address: &str, port: i64) -> String {
    match address.contains(':') {
        true => format!("http://[{address}]:{port}"),
        false => format!("http://{address}:{port}"),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TracingSpec {
    /// The collector's host; empty means jaeger in the namespace of the control plane.
    pub address: String,
    pub enable: bool,
    /// The path for Zipkin; OTLP over gRPC has none to choose.
    pub endpoint: String,
    /// 0 means 4317.
    pub port: i64,
    /// 0 to 1, as text; empty means 1.
    pub sampled_fraction: String,
}

impl TracingSpec {
    /// The port where collectors take OTLP over gRPC.
    pub const PORT: u16 = 4317;

    /// Where sidecars send spans.
    pub fn collector(&self, mesh_namespace: &str) -> String {
        let port = if self.port == 0 { i64::from(Self::PORT) } else { self.port };
        match self.address.as_str() {
            "" => http_at(&format!("jaeger.{mesh_namespace}.svc.cluster.local"), port),
            address => http_at(address, port),
        }
    }
}
