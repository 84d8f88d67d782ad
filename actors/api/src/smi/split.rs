//! TrafficSplit: one service's traffic, shared among several.

use serde::{Deserialize, Deserializer, Serialize};

use crate::meta::{ObjectMeta, null_as_default};
use crate::report::{Report, Validate};

/// split.smi-spec.io TrafficSplit, v1alpha4 or v1alpha2 (which has no `matches`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficSplit {
    pub metadata: ObjectMeta,
    pub spec: TrafficSplitSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficSplitSpec {
    /// The service that clients call: a name in this namespace, or its full DNS name.
    pub service: String,
    #[serde(deserialize_with = "null_as_default")]
    pub backends: Vec<Backend>,
    /// If not empty, only requests of these groups are split.
    #[serde(deserialize_with = "null_as_default")]
    pub matches: Vec<MatchReference>,
}

/// A service and its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// A name in this namespace, or `<namespace>/<name>`.
    pub service: String,
    /// The share, in proportion to the sum of all; 0 to 2^32-1 in a valid object.
    #[serde(deserialize_with = "whole_number")]
    pub weight: i64,
}

/// A HTTPRouteGroup in this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MatchReference {
    pub kind: String,
    pub name: String,
}

fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 1e15).then_some(float as i64)
    });
    whole.ok_or_else(|| serde::de::Error::custom(format!("weight {number} is not a whole number")))
}

impl TrafficSplitSpec {
    /// The apex service as `<namespace>/<name>`, given the split's namespace: a full DNS name keeps its first label.
    pub fn apex(&self, own: &str) -> String {
        let name = self.service.split('.').next().unwrap_or_default();
        format!("{own}/{name}")
    }
}

impl Backend {
    /// The service as `<namespace>/<name>`, given the split's namespace.
    pub fn full_name(&self, own: &str) -> String {
        if self.service.contains('/') { self.service.clone() } else { format!("{own}/{}", self.service) }
    }
}

impl Validate for TrafficSplit {
    fn validate(&self) -> Report {
        let own = &self.metadata.namespace;
        let mut report = Report::new("TrafficSplit", own, &self.metadata.name);
        self.validate_service(&mut report);
        let backends = &self.spec.backends;
        if backends.is_empty() {
            report.error("spec.backends", "is empty: name at least one service that takes the traffic");
        }
        for (index, backend) in backends.iter().enumerate() {
            let field = format!("spec.backends[{index}]");
            if !is_reference(&backend.service) {
                report.error(
                    format!("{field}.service"),
                    format!("\"{}\" is not a service: write its name, or <namespace>/<name>", backend.service),
                );
            }
            if backends[..index].iter().any(|other| other.full_name(own) == backend.full_name(own)) {
                report.error(
                    format!("{field}.service"),
                    format!("\"{}\" is a backend twice: add their weights and keep one", backend.service),
                );
            }
            if !(0..=i64::from(u32::MAX)).contains(&backend.weight) {
                report.error(
                    format!("{field}.weight"),
                    format!("{} is not a weight: write a whole number from 0 to 4294967295", backend.weight),
                );
            }
        }
        if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
            report.error(
                "spec.backends",
                "all weights are 0, so no backend takes the traffic: give one a positive weight",
            );
        }
        for (index, each) in self.spec.matches.iter().enumerate() {
            let field = format!("spec.matches[{index}]");
            if each.kind != "HTTPRouteGroup" {
                report
                    .error(format!("{field}.kind"), format!("is \"{}\": a split matches by HTTPRouteGroup", each.kind));
            }
            if each.name.is_empty() {
                report.error(format!("{field}.name"), "is empty: name a HTTPRouteGroup in this namespace");
            }
        }
        report
    }
}

impl TrafficSplit {
    fn validate_service(&self, report: &mut Report) {
        let own = &self.metadata.namespace;
        let service = &self.spec.service;
        let mut labels = service.split('.');
        if service.is_empty() || !labels.next().is_some_and(is_label) {
            report
                .error("spec.service", format!("\"{service}\" is not a service: write its name or its full DNS name"));
        } else if labels.next().is_some_and(|namespace| namespace != own) {
            report.error(
                "spec.service",
                format!("\"{service}\" is in another namespace: create the split in the service's namespace"),
            );
        }
    }
}

fn is_reference(text: &str) -> bool {
    match text.split_once('/') {
        None => is_label(text),
        Some((namespace, name)) => is_label(namespace) && is_label(name),
    }
}

/// RFC 1123 label.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}
