//! What users ask for with annotations on pods and namespaces.

use std::collections::{BTreeMap, BTreeSet};

use fsm_api::mesh_config::TrafficSpec;
use fsm_api::names;
use ipnet::IpNet;

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

/// Annotation on a Pod or Namespace that says what native sidecars do anyway.
const HOLD: &str = "flomesh.io/hold-application-until-proxy-starts";
/// Annotation on a Pod or Namespace that says what native sidecars do anyway.
const GRACEFUL_EXIT: &str = "flomesh.io/graceful-exit-until-downstream-ends";

/// The annotations of a pod and of its namespace.
pub struct Annotations {
    pod: BTreeMap<String, String>,
    namespace: BTreeMap<String, String>,
}

impl Annotations {
    pub fn new(pod: BTreeMap<String, String>, namespace: BTreeMap<String, String>) -> Self {
        Self { pod, namespace }
    }

    /// A value; the pod's wins.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pod.get(name).or_else(|| self.namespace.get(name)).map(String::as_str).map(str::trim)
    }

    /// An on/off value; the pod's wins. Anything but on or off is an error, wherever it stands.
    pub fn switch(&self, name: &str) -> Result<Option<bool>, Invalid> {
        self.get(name).map(|value| switch(name, value)).transpose()
    }

    /// An on/off value of the namespace.
    pub fn of_namespace(&self, name: &str) -> Result<Option<bool>, Invalid> {
        self.namespace.get(name).map(|value| switch(name, value)).transpose()
    }

    /// Sentences about annotations that ask for what cannot be had.
    pub fn without_effect(&self) -> Result<Vec<String>, Invalid> {
        let mut warnings = Vec::new();
        if self.switch(HOLD)? == Some(false) {
            warnings.push(format!("{HOLD}: has no effect: Kubernetes always starts a native sidecar first"));
        }
        if self.switch(GRACEFUL_EXIT)? == Some(false) {
            warnings.push(format!("{GRACEFUL_EXIT}: has no effect: Kubernetes always ends a native sidecar last"));
        }
        Ok(warnings)
    }

    /// The pod's lists of what bypasses the proxy, merged with the mesh's: annotations to be set.
    pub fn exclusions(&self, mesh: &TrafficSpec) -> Result<Vec<(&'static str, String)>, Invalid> {
        let ports = [
            (names::INBOUND_PORT_EXCLUSION, &mesh.inbound_port_exclusion_list),
            (names::OUTBOUND_PORT_EXCLUSION, &mesh.outbound_port_exclusion_list),
        ];
        let ranges = [
            (names::OUTBOUND_IP_RANGE_EXCLUSION, &mesh.outbound_ip_range_exclusion_list),
            (names::OUTBOUND_IP_RANGE_INCLUSION, &mesh.outbound_ip_range_inclusion_list),
        ];
        let mut lists = Vec::new();
        for (name, of_mesh) in ports {
            let mut merged: BTreeSet<u16> = of_mesh.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
            for entry in self.list(name) {
                let port = entry.parse::<u16>().ok().filter(|port| *port != 0);
                merged.insert(port.ok_or_else(|| {
                    invalid(name, entry, "a port: write numbers from 1 to 65535, separated by commas")
                })?);
            }
            lists.push((name, merged.iter().map(ToString::to_string).collect::<Vec<_>>()));
        }
        for (name, of_mesh) in ranges {
            let mut merged: BTreeSet<IpNet> = of_mesh.iter().filter_map(|range| range.parse().ok()).collect();
            for entry in self.list(name) {
                let range = entry.parse::<IpNet>();
                merged.insert(range.map_err(|_| {
                    invalid(name, entry, "an IP range: write CIDRs such as 10.0.0.0/8, separated by commas")
                })?);
            }
            lists.push((name, merged.iter().map(ToString::to_string).collect()));
        }
        lists.retain(|(_, list)| !list.is_empty());
        Ok(lists.into_iter().map(|(name, list)| (name, list.join(","))).collect())
    }

    /// The entries of one of the pod's lists.
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let list = self.pod.get(name).map(String::as_str).unwrap_or_default().trim();
        list.split(',').map(str::trim).filter(move |_| !list.is_empty())
    }
}

fn switch(name: &str, value: &str) -> Result<bool, Invalid> {
    names::switch(value).ok_or_else(|| invalid(name, value, "a switch: write enabled or disabled"))
}

/// The value of an annotation is not what it has to be.
pub fn invalid(annotation: &str, value: &str, expected: &str) -> Invalid {
    Invalid(format!("annotation {annotation}: \"{value}\" is not {expected}"))
}
