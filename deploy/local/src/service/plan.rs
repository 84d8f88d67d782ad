//! Which addresses the service network answers on at one node, and who stands behind them. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;

/// The label that ties an EndpointSlice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A transport protocol, by its number (IANA).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

/// The node the plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Here {
    pub node: String,
    pub zone: Option<String>,
    /// Where node ports answer.
    pub addresses: Vec<IpAddr>,
}

/// Addresses that lead to the same endpoints in the same way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balanced {
    pub protocol: Protocol,
    pub addresses: Vec<SocketAddr>,
    /// Sorted, of one family, not empty.
    pub endpoints: Vec<SocketAddr>,
    /// Whether clients from outside the cluster appear as the node: what answers them may be on another one.
    pub hide_outsiders: bool,
    /// Whether a client keeps its endpoint (`sessionAffinity: ClientIP`).
    pub sticky: bool,
}

/// Everything that is answered at this node.
pub fn plan(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], here: &Here) -> Vec<Balanced> {
    let mut by_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(name) = slice.labels().get(SERVICE_NAME) {
            by_service.entry((slice.namespace().unwrap_or_default(), name.clone())).or_default().push(slice);
        }
    }
    let mut sorted: Vec<_> = services.iter().collect();
    sorted.sort_by_key(|service| (service.namespace(), service.name_any()));
    let mut plan = Vec::new();
    for service in sorted {
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        let (Some(spec), Some(slices)) = (&service.spec, by_service.get(&key)) else { continue };
        for port in spec.ports.iter().flatten() {
            for ip in cluster_ips(spec) {
                plan.extend(of_port(service, spec, port, ip, slices, here));
            }
        }
    }
    plan
}

/// What one port of a service needs in the address family of its ClusterIP `ip`.
fn of_port(
    service: &Service,
    spec: &ServiceSpec,
    port: &ServicePort,
    ip: IpAddr,
    slices: &[&EndpointSlice],
    here: &Here,
) -> Vec<Balanced> {
    let number = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0);
    let (Some(protocol), Some(own)) = (protocol(port.protocol.as_deref()), number(port.port)) else { return vec![] };
    let same_family = |other: &IpAddr| other.is_ipv4() == ip.is_ipv4();
    let found = endpoints(slices, port, protocol, &same_family);
    let local_only = |policy: Option<&str>| policy == Some("Local");
    let balanced = |addresses: Vec<SocketAddr>, endpoints: Vec<SocketAddr>, hide_outsiders| {
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        let some = !addresses.is_empty() && !endpoints.is_empty();
        some.then_some(Balanced { protocol, addresses, endpoints, hide_outsiders, sticky })
    };

    let inside = if local_only(spec.internal_traffic_policy.as_deref()) {
        usable(found.iter().filter(|f| f.node == Some(here.node.as_str())))
    } else {
        near(&found, spec.traffic_distribution.as_deref(), here)
    };
    let mut all = vec![balanced(vec![SocketAddr::new(ip, own)], inside, false)];

    let keep_source = local_only(spec.external_traffic_policy.as_deref());
    let everywhere = usable(found.iter());
    let status = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let given = status.iter().flat_map(|s| s.ingress.iter().flatten()).filter_map(|i| i.ip.as_deref()?.parse().ok());
    let named = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok());
    let outer = given.chain(named).filter(same_family).map(|ip: IpAddr| SocketAddr::new(ip, own)).collect();
    all.push(balanced(outer, everywhere.clone(), !keep_source));
    if let Some(node_port) = port.node_port.and_then(number) {
        let addresses = here.addresses.iter().filter(|ip| same_family(ip)).map(|ip| SocketAddr::new(*ip, node_port));
        let behind =
            if keep_source { usable(found.iter().filter(|f| f.node == Some(here.node.as_str()))) } else { everywhere };
        all.push(balanced(addresses.collect(), behind, !keep_source));
    }
    all.into_iter().flatten().collect()
}

/// An endpoint of a port, with what decides about it.
struct Found<'a> {
    address: SocketAddr,
    node: Option<&'a str>,
    zone: Option<&'a str>,
    ready: bool,
}

/// The endpoints that serve: ready ones, and leaving ones that still do.
fn endpoints<'a>(
    slices: &[&'a EndpointSlice],
    port: &ServicePort,
    wanted: Protocol,
    same_family: &impl Fn(&IpAddr) -> bool,
) -> Vec<Found<'a>> {
    let mut found = Vec::new();
    for slice in slices {
        // A slice's port carries the service port's name; both may be unnamed.
        let name = port.name.as_deref().unwrap_or_default();
        let of_port =
            slice.ports.iter().flatten().find(|p| {
                p.name.as_deref().unwrap_or_default() == name && protocol(p.protocol.as_deref()) == Some(wanted)
            });
        let Some(number) = of_port.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = is_ready(endpoint);
            if !ready && !serves_its_last(endpoint) {
                continue;
            }
            let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).filter(same_family);
            found.extend(ips.map(|ip| Found {
                address: SocketAddr::new(ip, number),
                node: endpoint.node_name.as_deref(),
                zone: endpoint.zone.as_deref(),
                ready,
            }));
        }
    }
    found
}

/// The ready ones; if there are none, the leaving ones that still serve.
fn usable<'a>(found: impl Iterator<Item = &'a Found<'a>>) -> Vec<SocketAddr> {
    let (ready, leaving): (Vec<_>, Vec<_>) = found.partition(|f| f.ready);
    let chosen = if ready.is_empty() { leaving } else { ready };
    let mut addresses: Vec<_> = chosen.into_iter().map(|f| f.address).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// The usable ones as near as `trafficDistribution` asks for.
fn near(found: &[Found<'_>], distribution: Option<&str>, here: &Here) -> Vec<SocketAddr> {
    let ready = || found.iter().filter(|f| f.ready);
    let on_node = || usable(ready().filter(|f| f.node == Some(here.node.as_str())));
    let in_zone = || usable(ready().filter(|f| here.zone.is_some() && f.zone == here.zone.as_deref()));
    let mut choices = match distribution {
        Some("PreferSameNode") => vec![on_node(), in_zone()],
        Some("PreferClose" | "PreferSameZone") => vec![in_zone()],
        _ => Vec::new(),
    };
    choices.push(usable(found.iter()));
    choices.into_iter().find(|choice| !choice.is_empty()).unwrap_or_default()
}

/// All ClusterIPs of a service; none if it is headless.
pub fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    let listed: Vec<IpAddr> = spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
    if listed.is_empty() { spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect() } else { listed }
}

/// Unset means ready (EndpointSlice API, `conditions.ready`).
pub fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

fn serves_its_last(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|c| c.serving == Some(true) && c.terminating == Some(true))
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(more: Value) -> Arc<Service> {
        let mut spec = json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80, "targetPort": 14001}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})).unwrap(),
        )
    }

    fn slice(endpoints: Value) -> Arc<EndpointSlice> {
        let slice = json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [
                {"name": "http", "port": 14001, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}]});
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn endpoint(ip: &str, node: &str, zone: &str, ready: bool) -> Value {
        json!({"addresses": [ip], "nodeName": node, "zone": zone,
            "conditions": {"ready": ready, "serving": true, "terminating": !ready}})
    }

    /// `addresses -> endpoints`, one line each.
    fn shown(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let here = Here {
            node: "one".into(),
            zone: Some("a".into()),
            addresses: vec!["10.244.0.1".parse().unwrap(), "fd00:10:244::1".parse().unwrap()],
        };
        let list = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let line = |b: &Balanced| {
            let hidden = if b.hide_outsiders { " (hidden)" } else { "" };
            format!("{:?} {} -> {}{hidden}", b.protocol, list(&b.addresses), list(&b.endpoints))
        };
        plan(services, slices, &here).iter().map(line).collect()
    }

    fn two() -> Vec<Arc<EndpointSlice>> {
        vec![
            slice(json!([endpoint("10.244.0.3", "one", "a", true)])),
            slice(json!([endpoint("10.244.4.2", "two", "b", true)])),
        ]
    }

    #[test]
    fn a_service_port_leads_to_the_ready_endpoints_of_all_slices() {
        let expected = ["Tcp 10.96.0.7:80 -> 10.244.0.3:14001 10.244.4.2:14001"];
        assert_eq!(shown(&[service(json!({}))], &two()), expected);
        let unready = vec![slice(json!([endpoint("10.244.0.2", "one", "a", false)])), two().remove(0)];
        assert_eq!(shown(&[service(json!({}))], &unready), ["Tcp 10.96.0.7:80 -> 10.244.0.3:14001"]);
    }

    #[test]
    fn the_last_endpoints_serve_while_they_leave() {
        let leaving = [slice(json!([endpoint("10.244.0.3", "one", "a", false)]))];
        assert_eq!(shown(&[service(json!({}))], &leaving), ["Tcp 10.96.0.7:80 -> 10.244.0.3:14001"]);
    }

    #[test]
    fn headless_services_and_services_without_endpoints_are_not_answered_for() {
        assert!(shown(&[service(json!({"clusterIP": "None"}))], &two()).is_empty());
        let dead = json!([{"addresses": ["10.244.0.3"], "conditions": {"ready": false, "serving": false, "terminating": true}}]);
        assert!(shown(&[service(json!({}))], &[slice(dead)]).is_empty());
        assert!(shown(&[service(json!({}))], &[slice(json!(null))]).is_empty());
    }

    #[test]
    fn node_ports_and_outer_addresses_follow_their_traffic_policy() {
        let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]);
        let mut outer = json!({"type": "LoadBalancer", "ports": ports});
        let with_address = |spec: &Value| {
            let mut service = Service::clone(&service(spec.clone()));
            service.status =
                serde_json::from_value(json!({"loadBalancer": {"ingress": [{"ip": "198.18.0.16"}]}})).unwrap();
            [Arc::new(service)]
        };
        assert_eq!(
            shown(&with_address(&outer), &two()),
            [
                "Udp 10.96.0.7:53 -> 10.244.0.3:5353 10.244.4.2:5353",
                "Udp 198.18.0.16:53 -> 10.244.0.3:5353 10.244.4.2:5353 (hidden)",
                "Udp 10.244.0.1:30053 -> 10.244.0.3:5353 10.244.4.2:5353 (hidden)",
            ]
        );
        outer["externalTrafficPolicy"] = json!("Local");
        outer["internalTrafficPolicy"] = json!("Local");
        assert_eq!(
            shown(&with_address(&outer), &two()),
            [
                "Udp 10.96.0.7:53 -> 10.244.0.3:5353",
                "Udp 198.18.0.16:53 -> 10.244.0.3:5353 10.244.4.2:5353",
                "Udp 10.244.0.1:30053 -> 10.244.0.3:5353",
            ]
        );
    }

    #[test]
    fn near_endpoints_are_preferred_when_asked_for() {
        let close = service(json!({"trafficDistribution": "PreferClose"}));
        assert_eq!(shown(std::slice::from_ref(&close), &two()), ["Tcp 10.96.0.7:80 -> 10.244.0.3:14001"]);
        assert_eq!(shown(&[close], &two()[1..]), ["Tcp 10.96.0.7:80 -> 10.244.4.2:14001"]);
    }

    #[test]
    fn each_family_leads_to_endpoints_of_its_own() {
        let both = service(json!({"clusterIPs": ["10.96.0.7", "fd00:10:96::7"]}));
        let slices = [slice(json!([{"addresses": ["10.244.0.3"]}])), slice(json!([{"addresses": ["fd00:10:244::3"]}]))];
        let expected = ["Tcp 10.96.0.7:80 -> 10.244.0.3:14001", "Tcp [fd00:10:96::7]:80 -> [fd00:10:244::3]:14001"];
        assert_eq!(shown(&[both], &slices), expected);
    }
}
