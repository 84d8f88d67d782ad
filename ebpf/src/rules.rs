//! Which connections of a pod are left alone.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};

/// Pod annotation: inbound ports that reach the application directly.
pub const INBOUND_PORT_EXCLUSION_LIST: &str = "flomesh.io/inbound-port-exclusion-list";
/// Pod annotation: destination ports that are not captured.
pub const OUTBOUND_PORT_EXCLUSION_LIST: &str = "flomesh.io/outbound-port-exclusion-list";
/// Pod annotation: destination ranges that are not captured.
pub const OUTBOUND_IP_RANGE_EXCLUSION_LIST: &str = "flomesh.io/outbound-ip-range-exclusion-list";
/// Pod annotation: destination ranges that alone are captured.
pub const OUTBOUND_IP_RANGE_INCLUSION_LIST: &str = "flomesh.io/outbound-ip-range-inclusion-list";

/// Pod annotation: whether queries for names go to the proxy's DNS server.
pub const DNS_CAPTURE: &str = "flomesh.io/dns-capture";

/// The exclusions and inclusions of one pod. An exclusion always wins; connections to loopback are never captured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rules {
    /// Destination ports that are not captured.
    pub outbound_port_exclusions: BTreeSet<u16>,
    /// Destination ranges that are not captured.
    pub outbound_ip_range_exclusions: BTreeSet<IpNet>,
    /// If not empty, only destinations in these ranges are captured. IPv6 destinations then need a range of their own.
    pub outbound_ip_range_inclusions: BTreeSet<IpNet>,
    /// Ports of the pod that are reached directly.
    pub inbound_port_exclusions: BTreeSet<u16>,
    /// Whether queries for names (UDP to port 53) go to the proxy's DNS server. Exclusions hold for them too.
    pub dns_capture: bool,
}

/// An annotation that makes no sense. A pod with one is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    #[error("annotation {annotation}: {entry:?} is not a port: give integers from 1 to 65535 separated by commas")]
    Port { annotation: &'static str, entry: String },
    #[error(
        "annotation {annotation}: {entry:?} is not an IP range: give ranges like 10.0.0.0/8 or fd00::/8 separated by commas"
    )]
    Range { annotation: &'static str, entry: String },
    #[error("annotation {annotation}: {entry:?} is not a switch: write enabled or disabled")]
    Switch { annotation: &'static str, entry: String },
}

impl Rules {
    /// Reads the five annotations; others are ignored.
    pub fn from_annotations<'a>(annotations: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, RulesError> {
        let mut rules = Self::default();
        for (name, value) in annotations {
            match name {
                INBOUND_PORT_EXCLUSION_LIST => {
                    rules.inbound_port_exclusions = ports(INBOUND_PORT_EXCLUSION_LIST, value)?;
                }
                OUTBOUND_PORT_EXCLUSION_LIST => {
                    rules.outbound_port_exclusions = ports(OUTBOUND_PORT_EXCLUSION_LIST, value)?;
                }
                OUTBOUND_IP_RANGE_EXCLUSION_LIST => {
                    rules.outbound_ip_range_exclusions = ranges(OUTBOUND_IP_RANGE_EXCLUSION_LIST, value)?;
                }
                OUTBOUND_IP_RANGE_INCLUSION_LIST => {
                    rules.outbound_ip_range_inclusions = ranges(OUTBOUND_IP_RANGE_INCLUSION_LIST, value)?;
                }
                DNS_CAPTURE => {
                    let wrong = || RulesError::Switch { annotation: DNS_CAPTURE, entry: value.to_owned() };
                    rules.dns_capture = switch(value).ok_or_else(wrong)?;
                }
                _ => {}
            }
        }
        Ok(rules)
    }

    /// Adds the lists of `other`, as those of the mesh and of the pod add up.
    #[must_use]
    pub fn merged(mut self, other: &Self) -> Self {
        self.outbound_port_exclusions.extend(&other.outbound_port_exclusions);
        self.outbound_ip_range_exclusions.extend(&other.outbound_ip_range_exclusions);
        self.outbound_ip_range_inclusions.extend(&other.outbound_ip_range_inclusions);
        self.inbound_port_exclusions.extend(&other.inbound_port_exclusions);
        self.dns_capture |= other.dns_capture;
        self
    }

    /// Whether a connection of the application to `address`:`port` is captured: what the programs in the kernel decide,
    /// said in one place for tests and explanations.
    pub fn captures_outbound(&self, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() || is_link_local6(address) {
            return false;
        }
        if self.outbound_port_exclusions.contains(&port) {
            return false;
        }
        if self.outbound_ip_range_exclusions.iter().any(|range| range.contains(&address)) {
            return false;
        }
        let included = &self.outbound_ip_range_inclusions;
        included.is_empty() || included.iter().any(|range| range.contains(&address))
    }
}

fn is_link_local6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// As all switches of FSM.
fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "enabled" | "yes" | "true" => Some(true),
        "disabled" | "no" | "false" => Some(false),
        _ => None,
    }
}

fn entries(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn ports(annotation: &'static str, value: &str) -> Result<BTreeSet<u16>, RulesError> {
    let port = |entry: &str| match entry.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(RulesError::Port { annotation, entry: entry.to_owned() }),
    };
    entries(value).map(port).collect()
}

fn ranges(annotation: &'static str, value: &str) -> Result<BTreeSet<IpNet>, RulesError> {
    let range = |entry: &str| match entry.parse::<IpNet>() {
        Ok(range) => Ok(range.trunc()),
        Err(_) => Err(RulesError::Range { annotation, entry: entry.to_owned() }),
    };
    entries(value).map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(annotations: &[(&str, &str)]) -> Result<Rules, RulesError> {
        Rules::from_annotations(annotations.iter().copied())
    }

    #[test]
    fn the_four_annotations_are_read_and_others_ignored() {
        let rules = parse(&[
            (INBOUND_PORT_EXCLUSION_LIST, "6379, 7070"),
            (OUTBOUND_PORT_EXCLUSION_LIST, "3306"),
            (OUTBOUND_IP_RANGE_EXCLUSION_LIST, "10.1.2.3/8,fd00::/8"),
            (OUTBOUND_IP_RANGE_INCLUSION_LIST, " 192.168.0.0/16 ,"),
            ("flomesh.io/sidecar-injection", "enabled"),
        ])
        .unwrap();
        assert_eq!(rules.inbound_port_exclusions, BTreeSet::from([6379, 7070]));
        assert_eq!(rules.outbound_port_exclusions, BTreeSet::from([3306]));
        let excluded = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap());
        assert_eq!(rules.outbound_ip_range_exclusions, BTreeSet::from(excluded));
        assert_eq!(rules.outbound_ip_range_inclusions, BTreeSet::from(["192.168.0.0/16".parse().unwrap()]));
    }

    #[test]
    fn invalid_entries_are_named_with_their_annotation() {
        for bad in ["0", "65536", "http", "80-90"] {
            let refused = parse(&[(OUTBOUND_PORT_EXCLUSION_LIST, &format!("80,{bad}"))]).unwrap_err();
            assert_eq!(refused, RulesError::Port { annotation: OUTBOUND_PORT_EXCLUSION_LIST, entry: bad.to_owned() });
        }
        let refused = parse(&[(OUTBOUND_IP_RANGE_INCLUSION_LIST, "10.0.0.1")]).unwrap_err().to_string();
        assert!(refused.contains("flomesh.io/outbound-ip-range-inclusion-list") && refused.contains("10.0.0.1"));
    }

    #[test]
    fn lists_of_mesh_and_pod_add_up() {
        let mesh = parse(&[(OUTBOUND_PORT_EXCLUSION_LIST, "1,2")]).unwrap();
        let pod = parse(&[(OUTBOUND_PORT_EXCLUSION_LIST, "2,3"), (INBOUND_PORT_EXCLUSION_LIST, "9")]).unwrap();
        let merged = mesh.merged(&pod);
        assert_eq!(merged.outbound_port_exclusions, BTreeSet::from([1, 2, 3]));
        assert_eq!(merged.inbound_port_exclusions, BTreeSet::from([9]));
    }

    #[test]
    fn exclusions_win_over_inclusions_and_loopback_stays() {
        let rules = parse(&[
            (OUTBOUND_IP_RANGE_INCLUSION_LIST, "10.0.0.0/8,127.0.0.0/8"),
            (OUTBOUND_IP_RANGE_EXCLUSION_LIST, "10.1.0.0/16"),
        ])
        .unwrap();
        let captured = |address: &str| rules.captures_outbound(address.parse().unwrap(), 80);
        assert!(captured("10.2.0.1"));
        assert!(captured("::ffff:10.2.0.1"));
        assert!(!captured("10.1.0.1"));
        assert!(!captured("11.0.0.1"));
        assert!(!captured("127.0.0.1"));
        assert!(!captured("fd00::1"));
    }

    #[test]
    fn rules_survive_json() {
        let rules = parse(&[(OUTBOUND_IP_RANGE_EXCLUSION_LIST, "10.0.0.0/8")]).unwrap();
        let text = serde_json::to_string(&rules).unwrap();
        assert_eq!(serde_json::from_str::<Rules>(&text).unwrap(), rules);
        assert!(serde_json::from_str::<Rules>(r#"{"inboundPorts":[1]}"#).is_err());
    }
}
