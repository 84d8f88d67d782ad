//! What the cluster's names mean. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

use super::DOMAIN;
use crate::service::{SERVICE_NAME, cluster_ips, is_ready};

/// What is asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    A,
    Aaaa,
    Srv,
    Any,
    /// A type no name here has (MX, TXT …).
    Other,
}

/// One record found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Address(IpAddr),
    /// An ExternalName service's target.
    Alias(String),
    /// A named port, with the address of its target.
    Server {
        port: u16,
        target: String,
        address: IpAddr,
    },
}

/// The names of all services at one moment.
#[derive(Debug, Default)]
pub struct Zone {
    /// By namespace, then service.
    services: BTreeMap<String, BTreeMap<String, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Empty for a headless service.
    cluster_ips: Vec<IpAddr>,
    external: Option<String>,
    /// (name, protocol in lower case, number) of the service's ports.
    ports: Vec<(String, String, u16)>,
    /// Of a headless service.
    endpoints: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    label: String,
    ip: IpAddr,
    ports: Vec<(String, String, u16)>,
}

impl Zone {
    pub fn build(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Self {
        let mut zone = Self::default();
        for service in services {
            let Some(spec) = &service.spec else { continue };
            let ports = spec.ports.iter().flatten();
            let ports = ports.filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), Some(p.port))).collect();
            let cluster_ips = cluster_ips(spec);
            let external = spec.external_name.clone().filter(|_| spec.type_.as_deref() == Some("ExternalName"));
            let entry = Entry { cluster_ips, external, ports, endpoints: Vec::new() };
            zone.services.entry(service.namespace().unwrap_or_default()).or_default().insert(service.name_any(), entry);
        }
        for slice in slices {
            let Some(name) = slice.labels().get(SERVICE_NAME) else { continue };
            let namespace = zone.services.get_mut(&slice.namespace().unwrap_or_default());
            let Some(entry) = namespace.and_then(|services| services.get_mut(name)) else { continue };
            if entry.cluster_ips.is_empty() {
                entry.endpoints.extend(targets(slice));
            }
        }
        zone
    }

    /// The records of `name` (lower case, absolute), or `None` when no such name exists.
    pub fn lookup(&self, name: &str, query: Query) -> Option<Vec<Answer>> {
        let relative = name.trim_end_matches('.').strip_suffix(DOMAIN)?;
        let relative = match relative.strip_suffix('.') {
            Some(rest) => rest,
            None if relative.is_empty() => return Some(Vec::new()),
            None => return None,
        };
        let labels: Vec<&str> = relative.rsplit('.').collect();
        match labels.as_slice() {
            ["svc"] | ["pod"] => Some(Vec::new()),
            ["svc" | "pod", namespace] => self.services.contains_key(*namespace).then(Vec::new),
            ["pod", namespace, dashed] => {
                let ip = undashed(dashed).filter(|_| self.services.contains_key(*namespace))?;
                Some(addresses([ip], query))
            }
            ["svc", namespace, service, rest @ ..] => {
                let entry = self.services.get(*namespace)?.get(*service)?;
                let base = format!("{service}.{namespace}.svc.{DOMAIN}.");
                match rest {
                    [] => Some(entry.addresses(query)),
                    [protocol, port] if port.starts_with('_') && protocol.starts_with('_') => {
                        entry.servers(&port[1..], &protocol[1..], &base, query)
                    }
                    [protocol @ ("_tcp" | "_udp")] => {
                        entry.ports.iter().any(|(_, p, _)| *p == protocol[1..]).then(Vec::new)
                    }
                    [host] => entry.host(host, query),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl Entry {
    fn addresses(&self, query: Query) -> Vec<Answer> {
        if let Some(target) = &self.external {
            return vec![Answer::Alias(format!("{}.", target.trim_end_matches('.')))];
        }
        let headless: BTreeSet<IpAddr> = self.endpoints.iter().map(|e| e.ip).collect();
        addresses(self.cluster_ips.iter().copied().chain(headless), query)
    }

    fn host(&self, label: &str, query: Query) -> Option<Vec<Answer>> {
        let ips: BTreeSet<IpAddr> = self.endpoints.iter().filter(|e| e.label == label).map(|e| e.ip).collect();
        if ips.is_empty() {
            return None;
        }
        Some(addresses(ips, query))
    }

    fn servers(&self, port: &str, protocol: &str, base: &str, query: Query) -> Option<Vec<Answer>> {
        let named = |p: &&(String, String, u16)| p.0 == port && p.1 == protocol;
        let mut found = Vec::new();
        if let Some((_, _, number)) = self.ports.iter().find(named) {
            let server = |ip: &IpAddr| Answer::Server { port: *number, target: base.to_owned(), address: *ip };
            found.extend(self.cluster_ips.iter().map(server));
        }
        for endpoint in &self.endpoints {
            if let Some((_, _, number)) = endpoint.ports.iter().find(named) {
                let target = format!("{}.{base}", endpoint.label);
                found.push(Answer::Server { port: *number, target, address: endpoint.ip });
            }
        }
        if found.is_empty() {
            return None;
        }
        Some(if matches!(query, Query::Srv | Query::Any) { found } else { Vec::new() })
    }
}

/// The ready endpoints of a slice. One without a hostname is named after its address, as Kubernetes' DNS does.
fn targets(slice: &EndpointSlice) -> impl Iterator<Item = Target> + '_ {
    let ports: Vec<_> = slice.ports.iter().flatten().collect();
    slice.endpoints.iter().flatten().filter(|e| is_ready(e)).flat_map(move |endpoint| {
        let ports = ports.clone();
        endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).map(move |ip| Target {
            label: endpoint.hostname.clone().unwrap_or_else(|| ip.to_string().replace(['.', ':'], "-")),
            ip,
            ports: ports.iter().filter_map(|p| port(p.name.as_deref(), p.protocol.as_deref(), p.port)).collect(),
        })
    })
}

fn port(name: Option<&str>, protocol: Option<&str>, number: Option<i32>) -> Option<(String, String, u16)> {
    let number = u16::try_from(number?).ok()?;
    Some((name.unwrap_or_default().to_owned(), protocol.unwrap_or("TCP").to_lowercase(), number))
}

/// The addresses of the family asked for.
fn addresses(ips: impl IntoIterator<Item = IpAddr>, query: Query) -> Vec<Answer> {
    let wanted = |ip: &IpAddr| match query {
        Query::A => ip.is_ipv4(),
        Query::Aaaa => ip.is_ipv6(),
        Query::Any => true,
        Query::Srv | Query::Other => false,
    };
    ips.into_iter().filter(wanted).map(Answer::Address).collect()
}

/// `10-244-0-6` or `fd00-10-244--6` as an address.
fn undashed(name: &str) -> Option<IpAddr> {
    name.replace('-', ".").parse().or_else(|_| name.replace('-', ":").parse()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn zone() -> Zone {
        let services = [
            json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.3.4",
                "clusterIPs": ["10.96.3.4", "fd00:10:96::34"], "ports": [{"name": "http", "port": 80}]}}),
            json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None"}}),
            json!({"metadata": {"name": "out", "namespace": "shop"}, "spec": {"type": "ExternalName", "externalName": "example.com"}}),
        ];
        let slice = json!({"metadata": {"name": "db-x", "namespace": "shop", "labels": {SERVICE_NAME: "db"}}, "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}], "endpoints": [
                {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": false}}]});
        let services: Vec<_> = services.map(|s| Arc::new(serde_json::from_value(s).unwrap())).into();
        Zone::build(&services, &[Arc::new(serde_json::from_value(slice).unwrap())])
    }

    fn addresses(name: &str) -> Option<Vec<String>> {
        let found = zone().lookup(name, Query::A)?;
        Some(
            found
                .into_iter()
                .map(|a| if let Answer::Address(ip) = a { ip.to_string() } else { format!("{a:?}") })
                .collect(),
        )
    }

    #[test]
    fn a_service_has_its_cluster_ip_and_a_headless_one_its_ready_pods() {
        assert_eq!(addresses("web.shop.svc.cluster.local.").unwrap(), ["10.96.3.4"]);
        assert_eq!(addresses("db.shop.svc.cluster.local.").unwrap(), ["10.244.0.5", "10.244.0.6"]);
        assert_eq!(addresses("db-0.db.shop.svc.cluster.local.").unwrap(), ["10.244.0.5"]);
        assert_eq!(addresses("10-244-0-6.db.shop.svc.cluster.local.").unwrap(), ["10.244.0.6"]);
        assert_eq!(addresses("10-244-0-6.shop.pod.cluster.local.").unwrap(), ["10.244.0.6"]);
        let found = zone().lookup("web.shop.svc.cluster.local.", Query::Aaaa).unwrap();
        assert_eq!(found, [Answer::Address("fd00:10:96::34".parse().unwrap())]);
        assert_eq!(zone().lookup("fd00-10-244--6.shop.pod.cluster.local.", Query::Aaaa).unwrap().len(), 1);
        assert_eq!(addresses("out.shop.svc.cluster.local.").unwrap(), ["Alias(\"example.com.\")"]);
    }

    #[test]
    fn search_domains_and_foreign_names_lead_nowhere() {
        for name in [
            "db-2.db.shop.svc.cluster.local.",
            "web.shop.svc.cluster.local.other.svc.cluster.local.",
            "nobody.shop.svc.cluster.local.",
            "web.nowhere.svc.cluster.local.",
            "www.example.com.",
            "notcluster.local.",
        ] {
            assert_eq!(addresses(name), None, "{name}");
        }
        for name in
            ["cluster.local.", "svc.cluster.local.", "shop.svc.cluster.local.", "_tcp.web.shop.svc.cluster.local."]
        {
            assert_eq!(addresses(name), Some(vec![]), "{name}");
        }
    }

    #[test]
    fn named_ports_are_servers() {
        let server =
            |port, target: &str, ip: &str| Answer::Server { port, target: target.into(), address: ip.parse().unwrap() };
        let zone = zone();
        let found = zone.lookup("_http._tcp.web.shop.svc.cluster.local.", Query::Srv).unwrap();
        let web = "web.shop.svc.cluster.local.";
        assert_eq!(found, [server(80, web, "10.96.3.4"), server(80, web, "fd00:10:96::34")]);
        let found = zone.lookup("_sql._tcp.db.shop.svc.cluster.local.", Query::Srv).unwrap();
        assert_eq!(found[0], server(5432, "db-0.db.shop.svc.cluster.local.", "10.244.0.5"));
        assert_eq!(found.len(), 2);
        assert_eq!(zone.lookup("_grpc._tcp.web.shop.svc.cluster.local.", Query::Srv), None);
    }
}
