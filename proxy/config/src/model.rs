//! The plain data that a [`Snapshot`](crate::Snapshot) holds after compilation: addresses parsed, names resolved.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

use crate::identity::SpiffeId;
use crate::names::Names;
use crate::observe::{AccessLog, RemoteLog, Tracing};
use crate::proto;

/// What a port speaks, as declared on the Service (`appProtocol`, or the prefix of the port's name).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Not declared: the first bytes tell.
    #[default]
    Detect,
    Http,
    Http2,
    Grpc,
    Tcp,
    /// Opaque, and the server may speak first: nobody may wait for the client's first bytes.
    TcpServerFirst,
    /// Opaque: the applications do TLS themselves.
    Tls,
}

impl Protocol {
    /// Known to be HTTP (any version) without looking at bytes.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    /// Known to be carried as an opaque stream of bytes.
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Tcp | Self::TcpServerFirst | Self::Tls)
    }

    /// The name used in configuration dumps and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::TcpServerFirst => "tcp_server_first",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<proto::Protocol> for Protocol {
    fn from(protocol: proto::Protocol) -> Self {
        match protocol {
            proto::Protocol::Detect => Self::Detect,
            proto::Protocol::Http => Self::Http,
            proto::Protocol::Http2 => Self::Http2,
            proto::Protocol::Grpc => Self::Grpc,
            proto::Protocol::Tcp => Self::Tcp,
            proto::Protocol::TcpServerFirst => Self::TcpServerFirst,
            proto::Protocol::Tls => Self::Tls,
        }
    }
}

/// Mesh-wide behaviour. The default is the closed one: no permissive mode, no egress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub mesh_name: String,
    /// Identities of other trust domains are refused; empty until the controller has sent its settings.
    pub trust_domain: String,
    /// TrafficTargets are ignored: every identity of the mesh may call every service.
    pub permissive: bool,
    /// Destinations outside the mesh are passed through untouched.
    pub egress: bool,
    pub connect_timeout: Duration,
    /// How long a connection may be idle before the proxy closes it; none means for ever.
    pub idle_timeout: Option<Duration>,
    /// Dial the application on the pod's address instead of 127.0.0.1.
    pub dial_pod_ip: bool,
    /// What the sidecar's DNS server knows by itself.
    pub names: Names,
    /// Requests and connections are written down.
    pub access_log: Option<AccessLog>,
    /// They are sent to a server of the user's own.
    pub remote_log: Option<RemoteLog>,
    /// Spans of requests are sent to a collector.
    pub tracing: Option<Tracing>,
}

impl Settings {
    /// How long a dial may take when the controller does not say.
    pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

    /// Whether anything is told of single requests.
    #[inline]
    pub fn tells(&self) -> bool {
        self.access_log.is_some() || self.remote_log.is_some() || self.tracing.is_some()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mesh_name: String::new(),
            trust_domain: String::new(),
            permissive: false,
            egress: false,
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: None,
            dial_pod_ip: false,
            names: Names::default(),
            access_log: None,
            remote_log: None,
            tracing: None,
        }
    }
}

/// The pod that this proxy serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    pub namespace: String,
    pub pod: String,
    pub service_account: String,
    pub node: String,
    pub zone: String,
    /// Ports that at least one Service sends traffic to, by number.
    pub ports: Vec<InboundPort>,
}

/// A port of the application behind this proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPort {
    pub port: u16,
    pub protocol: Protocol,
    /// `ns/name` of the services that have this port as target.
    pub services: Vec<String>,
}

/// A service of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `ns/name`.
    pub name: String,
    /// Cluster addresses; none for a headless service.
    pub vips: Vec<IpAddr>,
    /// In lower case, without port.
    pub hosts: Vec<String>,
    pub ports: Vec<ServicePort>,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub number: u16,
    pub name: String,
    pub protocol: Protocol,
}

/// Where traffic for a service port can go: one pod's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's address and the target port of the application.
    pub address: SocketAddr,
    /// The identity that its certificate must carry; none means no proxy there: plain text.
    pub identity: Option<SpiffeId>,
    /// `ns/name` of the pod, empty if none.
    pub pod: String,
    pub zone: String,
    /// Its share beside the other endpoints, 1 unless told otherwise.
    pub weight: u32,
}
