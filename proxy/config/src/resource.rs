//! Names and kinds of resources.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use prost::Message;
use serde::Serialize;

use crate::proto;

/// The kinds of resources, in the order in which they are listed everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Settings,
    Workload,
    TrustBundle,
    Service,
    Endpoints,
    Split,
    RouteGroup,
    TcpRoute,
    InboundPolicy,
    TrafficPolicy,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 10] = [
        Self::Settings,
        Self::Workload,
        Self::TrustBundle,
        Self::Service,
        Self::Endpoints,
        Self::Split,
        Self::RouteGroup,
        Self::TcpRoute,
        Self::InboundPolicy,
        Self::TrafficPolicy,
    ];

    /// The name of the protobuf message, which is also the prefix of resource names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "Settings",
            Self::Workload => "Workload",
            Self::TrustBundle => "TrustBundle",
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::Split => "Split",
            Self::RouteGroup => "RouteGroup",
            Self::TcpRoute => "TcpRoute",
            Self::InboundPolicy => "InboundPolicy",
            Self::TrafficPolicy => "TrafficPolicy",
        }
    }

    /// The type URL of the message inside an `Any`.
    pub fn type_url(self) -> String {
        format!("type.googleapis.com/fsm.config.v1.{}", self.as_str())
    }
}

impl FromStr for Kind {
    type Err = InvalidResource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| InvalidResource::UnknownKind(text.to_owned()))
    }
}

/// The name of one resource: `<Kind>/<name>`, where the name is mostly `<namespace>/<object>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName {
    pub kind: Kind,
    /// A clone shares the text.
    pub name: Arc<str>,
}

impl ResourceName {
    pub fn new(kind: Kind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

impl FromStr for ResourceName {
    type Err = InvalidResource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once('/').ok_or_else(|| InvalidResource::Name(text.to_owned()))?;
        if name.is_empty() {
            return Err(InvalidResource::Name(text.to_owned()));
        }
        Ok(Self::new(kind.parse()?, name))
    }
}

/// One decoded resource. Serialized, it is its message's fields.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Resource {
    Settings(proto::Settings),
    Workload(proto::Workload),
    TrustBundle(proto::TrustBundle),
    Service(proto::Service),
    Endpoints(proto::Endpoints),
    Split(proto::Split),
    RouteGroup(proto::RouteGroup),
    TcpRoute(proto::TcpRoute),
    InboundPolicy(proto::InboundPolicy),
    TrafficPolicy(proto::TrafficPolicy),
}

impl Resource {
    /// The kind of this resource.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Settings(_) => Kind::Settings,
            Self::Workload(_) => Kind::Workload,
            Self::TrustBundle(_) => Kind::TrustBundle,
            Self::Service(_) => Kind::Service,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Split(_) => Kind::Split,
            Self::RouteGroup(_) => Kind::RouteGroup,
            Self::TcpRoute(_) => Kind::TcpRoute,
            Self::InboundPolicy(_) => Kind::InboundPolicy,
            Self::TrafficPolicy(_) => Kind::TrafficPolicy,
        }
    }

    /// Its bytes on the stream: protobuf, in field order, hence equal for equal content.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Settings(message) => message.encode_to_vec(),
            Self::Workload(message) => message.encode_to_vec(),
            Self::TrustBundle(message) => message.encode_to_vec(),
            Self::Service(message) => message.encode_to_vec(),
            Self::Endpoints(message) => message.encode_to_vec(),
            Self::Split(message) => message.encode_to_vec(),
            Self::RouteGroup(message) => message.encode_to_vec(),
            Self::TcpRoute(message) => message.encode_to_vec(),
            Self::InboundPolicy(message) => message.encode_to_vec(),
            Self::TrafficPolicy(message) => message.encode_to_vec(),
        }
    }

    /// Decodes the bytes of a resource of `kind`.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, InvalidResource> {
        let invalid = |source| InvalidResource::Encoding { kind: kind.as_str(), source };
        Ok(match kind {
            Kind::Settings => Self::Settings(Message::decode(bytes).map_err(invalid)?),
            Kind::Workload => Self::Workload(Message::decode(bytes).map_err(invalid)?),
            Kind::TrustBundle => Self::TrustBundle(Message::decode(bytes).map_err(invalid)?),
            Kind::Service => Self::Service(Message::decode(bytes).map_err(invalid)?),
            Kind::Endpoints => Self::Endpoints(Message::decode(bytes).map_err(invalid)?),
            Kind::Split => Self::Split(Message::decode(bytes).map_err(invalid)?),
            Kind::RouteGroup => Self::RouteGroup(Message::decode(bytes).map_err(invalid)?),
            Kind::TcpRoute => Self::TcpRoute(Message::decode(bytes).map_err(invalid)?),
            Kind::InboundPolicy => Self::InboundPolicy(Message::decode(bytes).map_err(invalid)?),
            Kind::TrafficPolicy => Self::TrafficPolicy(Message::decode(bytes).map_err(invalid)?),
        })
    }
}

/// Why a resource or its name cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum InvalidResource {
    #[error("\"{0}\" is not a resource name: expected <Kind>/<name>")]
    Name(String),
    #[error("unknown kind of resource \"{0}\"; a newer controller may know it: upgrade this proxy")]
    UnknownKind(String),
    #[error("the bytes of a {kind} are damaged: {source}")]
    Encoding { kind: &'static str, source: prost::DecodeError },
    #[error("{resource}: {field}: {reason}")]
    Field { resource: ResourceName, field: String, reason: String },
}
