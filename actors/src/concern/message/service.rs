//! Services: their names, addresses, ports and protocols.

use fsm_proxy_config::proto::{self, Protocol};

use crate::catalog::view::Service;
use crate::catalog::{Mesh, ObjectName};

/// The message of a service.
pub fn service(name: &ObjectName, view: &Service, mesh: &Mesh) -> proto::Service {
    let ports = view.ports.iter().map(|port| proto::ServicePort {
        port: u32::from(port.port),
        name: port.name.clone(),
        protocol: protocol(port.app_protocol.as_deref(), &port.name).into(),
    });
    proto::Service { hosts: hosts(name, &mesh.started.trust_domain), vips: view.vips.clone(), ports: ports.collect() }
}

/// The names that mean a service in a Host header: `name`, `name.namespace`, `name.namespace.svc`, and that with each leading part of
/// the trust domain appended.
fn hosts(name: &ObjectName, trust_domain: &str) -> Vec<String> {
    let (namespace, name) = (name.namespace(), name.name());
    let mut host = format!("{name}.{namespace}.svc");
    let mut hosts = vec![name.to_owned(), format!("{name}.{namespace}"), host.clone()];
    for label in trust_domain.split('.').filter(|label| !label.is_empty()) {
        host = format!("{host}.{label}");
        hosts.push(host.clone());
    }
    hosts.sort();
    hosts
}

/// What a port speaks: its `appProtocol`, or else the prefix of its name; neither means that the first bytes tell.
pub fn protocol(app_protocol: Option<&str>, port_name: &str) -> Protocol {
    if let Some(declared) = app_protocol.filter(|declared| !declared.is_empty()) {
        return known(&declared.to_ascii_lowercase()).unwrap_or(Protocol::Detect);
    }
    if port_name == "tcp-server-first" || port_name.starts_with("tcp-server-first-") {
        return Protocol::TcpServerFirst;
    }
    let prefix = port_name.split('-').next().unwrap_or_default();
    known(prefix).unwrap_or(Protocol::Detect)
}

fn known(name: &str) -> Option<Protocol> {
    Some(match name {
        "http" | "http1" | "ws" | "kubernetes.io/ws" => Protocol::Http,
        "http2" | "h2c" | "kubernetes.io/h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "tcp" => Protocol::Tcp,
        "tcp-server-first" => Protocol::TcpServerFirst,
        "tls" | "https" | "wss" | "kubernetes.io/wss" => Protocol::Tls,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ports_protocol_is_its_app_protocol_or_the_prefix_of_its_name() {
        for (app_protocol, name, expected) in [
            (Some("grpc"), "http-web", Protocol::Grpc),
            (Some("HTTP"), "", Protocol::Http),
            (Some("kubernetes.io/h2c"), "", Protocol::Http2),
            (Some("example.com/own"), "http", Protocol::Detect),
            (None, "http", Protocol::Http),
            (None, "http-admin", Protocol::Http),
            (None, "tcp-mysql", Protocol::Tcp),
            (None, "tcp-server-first-mysql", Protocol::TcpServerFirst),
            (None, "https", Protocol::Tls),
            (None, "bookstore-port", Protocol::Detect),
            (None, "", Protocol::Detect),
        ] {
            assert_eq!(protocol(app_protocol, name), expected, "{app_protocol:?} {name:?}");
        }
    }

    #[test]
    fn a_service_has_all_its_names() {
        let name = ObjectName::new("shop", "web");
        let expected = ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster", "web.shop.svc.cluster.local"];
        assert_eq!(hosts(&name, "cluster.local"), expected);
    }
}
