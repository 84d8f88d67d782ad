//! Configurations as JSON, for people: `/config_dump`, `fsm replay config`, differences.

use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::set::ConfigSet;

impl Resource {
    /// The message with its protobuf field names, and protocols as words.
    pub fn to_json(&self) -> Value {
        let value = match self {
            Self::Settings(message) => serde_json::to_value(message),
            Self::Workload(message) => serde_json::to_value(message),
            Self::TrustBundle(message) => serde_json::to_value(message),
            Self::Service(message) => serde_json::to_value(message),
            Self::Endpoints(message) => serde_json::to_value(message),
            Self::Split(message) => serde_json::to_value(message),
            Self::RouteGroup(message) => serde_json::to_value(message),
            Self::TcpRoute(message) => serde_json::to_value(message),
            Self::InboundPolicy(message) => serde_json::to_value(message),
            Self::TrafficPolicy(message) => serde_json::to_value(message),
        };
        // Messages are numbers, texts and lists of them, which always have a JSON form.
        value.unwrap_or(Value::Null)
    }
}

impl ConfigSet {
    /// `{seq, digest, resources: {"<Kind>/<name>": {version, config}}}`; a resource that cannot be decoded shows the
    /// reason in place of its content.
    pub fn to_json(&self) -> Value {
        let resources = self.resources.iter().map(|(name, entry)| {
            let config = match Resource::decode(name.kind, &entry.bytes) {
                Ok(resource) => resource.to_json(),
                Err(error) => json!({ "error": error.to_string() }),
            };
            (name.to_string(), json!({ "version": entry.version, "config": config }))
        });
        let resources: Map<String, Value> = resources.collect();
        json!({ "seq": self.seq, "digest": self.digest().to_string(), "resources": resources })
    }
}

/// For the generated messages: the protocol's word instead of its number.
pub(crate) fn protocol<S: serde::Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match crate::proto::Protocol::try_from(*number) {
        Ok(protocol) => serializer.serialize_str(crate::model::Protocol::from(protocol).as_str()),
        Err(_) => serializer.serialize_i32(*number),
    }
}

/// For the generated messages: the algorithm's word instead of its number.
pub(crate) fn algorithm<S: serde::Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match crate::proto::BalancerAlgorithm::try_from(*number) {
        Ok(algorithm) => serializer.serialize_str(&algorithm.as_str_name().to_ascii_lowercase()),
        Err(_) => serializer.serialize_i32(*number),
    }
}

/// Likewise for the format of the access log.
pub(crate) fn log_format<S: serde::Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match crate::proto::LogFormat::try_from(*number) {
        Ok(crate::proto::LogFormat::Json) => serializer.serialize_str("json"),
        Ok(crate::proto::LogFormat::Text) => serializer.serialize_str("text"),
        Err(_) => serializer.serialize_i32(*number),
    }
}
