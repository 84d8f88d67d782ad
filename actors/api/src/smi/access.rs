//! TrafficTarget: who may call whom, and how.

use serde::{Deserialize, Serialize};

use crate::meta::{ObjectMeta, null_as_default};
use crate::report::{Report, Validate};

/// access.smi-spec.io/v1alpha3 TrafficTarget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficTarget {
    pub metadata: ObjectMeta,
    pub spec: TrafficTargetSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficTargetSpec {
    pub destination: IdentityReference,
    #[serde(deserialize_with = "null_as_default")]
    pub sources: Vec<IdentityReference>,
    #[serde(deserialize_with = "null_as_default")]
    pub rules: Vec<RouteReference>,
}

/// A service account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdentityReference {
    /// Always `ServiceAccount` in a valid object.
    pub kind: String,
    pub name: String,
    /// Empty means the TrafficTarget's own namespace.
    pub namespace: String,
}

impl IdentityReference {
    /// The namespace, given the one of the TrafficTarget.
    pub fn namespace_or<'a>(&'a self, own: &'a str) -> &'a str {
        if self.namespace.is_empty() { own } else { &self.namespace }
    }
}

/// A route group or TCP route in the TrafficTarget's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteReference {
    /// `HTTPRouteGroup` or `TCPRoute` in a valid object.
    pub kind: String,
    pub name: String,
    /// Names of the group's matches; empty means all of them.
    #[serde(deserialize_with = "null_as_default")]
    pub matches: Vec<String>,
}

impl Validate for TrafficTarget {
    fn validate(&self) -> Report {
        let own = &self.metadata.namespace;
        let mut report = Report::new("TrafficTarget", own, &self.metadata.name);
        let destination = &self.spec.destination;
        identity(&mut report, "spec.destination", destination);
        if destination.namespace_or(own) != own {
            report.error(
                "spec.destination.namespace",
                format!(
                    "is \"{}\", but a TrafficTarget can only grant access to its own namespace \"{own}\": \
                     create it in the destination's namespace",
                    destination.namespace
                ),
            );
        }
        if self.spec.sources.is_empty() {
            report.warn("spec.sources", "is empty, so nobody is granted access: name at least one ServiceAccount");
        }
        for (index, source) in self.spec.sources.iter().enumerate() {
            identity(&mut report, &format!("spec.sources[{index}]"), source);
        }
        if self.spec.rules.is_empty() {
            report.warn(
                "spec.rules",
                "is empty, so no request or connection is allowed: name at least one HTTPRouteGroup or TCPRoute",
            );
        }
        for (index, rule) in self.spec.rules.iter().enumerate() {
            rule.validate_into(&mut report, &format!("spec.rules[{index}]"));
        }
        report
    }
}

fn identity(report: &mut Report, field: &str, identity: &IdentityReference) {
    if identity.kind != "ServiceAccount" {
        report.error(
            format!("{field}.kind"),
            format!("is \"{}\", but identities are service accounts: write ServiceAccount", identity.kind),
        );
    }
    if identity.name.is_empty() {
        report.error(format!("{field}.name"), "is empty: name the ServiceAccount");
    }
}

impl RouteReference {
    fn validate_into(&self, report: &mut Report, field: &str) {
        match self.kind.as_str() {
            "HTTPRouteGroup" => {}
            "TCPRoute" if self.matches.is_empty() => {}
            "TCPRoute" => report
                .error(format!("{field}.matches"), "a TCPRoute has no named matches to choose from: remove this list"),
            "UDPRoute" => report.error(
                format!("{field}.kind"),
                "UDPRoute is not supported, since UDP traffic does not pass through the mesh: use HTTPRouteGroup or TCPRoute",
            ),
            other => report
                .error(format!("{field}.kind"), format!("is \"{other}\": a rule is a HTTPRouteGroup or a TCPRoute")),
        }
        if self.name.is_empty() {
            report.error(format!("{field}.name"), "is empty: name the route in this namespace");
        }
        for (index, name) in self.matches.iter().enumerate() {
            if self.matches[..index].contains(name) {
                report.error(format!("{field}.matches[{index}]"), format!("\"{name}\" is listed twice: remove one"));
            }
        }
    }
}
