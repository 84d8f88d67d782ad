//! What address an application in a pod gets for a name: the cluster's DNS, as of a moment.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fsm_actors::catalog::{Catalog, ObjectName};

use crate::replay::misuse::Misuse;

/// A host and a port, as an application writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: String,
    pub(super) port: u16,
}

/// An address, and why it is that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) address: SocketAddr,
    pub(super) how: String,
    /// The service that the name means.
    pub(super) service: Option<ObjectName>,
}

impl Authority {
    /// Reads `HOST:PORT`; IPv6 addresses in brackets.
    pub(super) fn parse(text: &str) -> Result<Self, Misuse> {
        let read = || {
            let (host, port) = text.rsplit_once(':')?;
            let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            let is_host = !host.is_empty() && (!host.contains(':') || host.parse::<IpAddr>().is_ok());
            is_host.then(|| Self { host: host.to_owned(), port })
        };
        read().ok_or_else(|| Misuse(format!("--to {text}: write HOST:PORT, for example bookstore.bookstore:14001")))
    }

    /// The address for an application in `namespace`.
    pub(super) fn resolve(&self, catalog: &Catalog, namespace: &str) -> Resolved {
        let host = self.host.as_str();
        let port = self.port;
        let at = |ip: IpAddr, service: Option<&ObjectName>, how: String| Resolved {
            address: SocketAddr::new(ip, port),
            how,
            service: service.cloned(),
        };
        let nowhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        if let Ok(ip) = host.parse::<IpAddr>() {
            let service = catalog.services().iter().find(|(_, service)| service.vips.contains(&ip.to_string()));
            return at(ip, service.map(|(name, _)| name), format!("{host} is an address"));
        }
        for (name, hostname) in self.readings(namespace) {
            let Some(service) = catalog.services().get(&name) else { continue };
            let vip = service.vips.iter().find_map(|vip| vip.parse().ok());
            return match (hostname, vip) {
                (None, Some(vip)) => at(vip, Some(&name), format!("{host} is service {name}: {vip}")),
                _ => match endpoint(catalog, &name, hostname) {
                    Some((ip, pod)) => {
                        at(ip, Some(&name), format!("{host} is {ip}, the address of {pod} of service {name}"))
                    }
                    None => at(
                        nowhere,
                        Some(&name),
                        format!("{host} had no address: no ready pod of service {name} is meant"),
                    ),
                },
            };
        }
        at(nowhere, None, format!("{host} is no service of the cluster: taken for an address outside of it"))
    }

    /// The services that the name may mean, in the order in which a pod's resolver tries them, with the pod's host name in it if it has
    /// one: `[hostname.]name[.namespace[.svc[.cluster.local]]]`.
    fn readings(&self, namespace: &str) -> Vec<(ObjectName, Option<&str>)> {
        let host = self.host.strip_suffix('.').unwrap_or(&self.host);
        let labels: Vec<&str> = host.split('.').collect();
        let mut readings = Vec::new();
        match labels.as_slice() {
            [name] => readings.push((ObjectName::new(namespace, *name), None)),
            [first, second] => {
                readings.push((ObjectName::new(namespace, *second), Some(*first)));
                readings.push((ObjectName::new(*second, *first), None));
            }
            [name, of, "svc", ..] => readings.push((ObjectName::new(*of, *name), None)),
            [hostname, name, of] | [hostname, name, of, "svc", ..] => {
                readings.push((ObjectName::new(*of, *name), Some(*hostname)));
            }
            _ => {}
        }
        readings
    }
}

/// The first ready endpoint of a service, or the one of this host name, and what it is.
fn endpoint(catalog: &Catalog, service: &ObjectName, hostname: Option<&str>) -> Option<(IpAddr, String)> {
    let endpoints = catalog.slices_of_service(service).flat_map(|(_, slice)| slice.endpoints.iter());
    endpoints
        .filter(|endpoint| endpoint.ready)
        .filter(|endpoint| hostname.is_none_or(|hostname| endpoint.hostname == hostname))
        .find_map(|endpoint| {
            let ip = endpoint.address.parse().ok()?;
            Some((ip, endpoint.pod.as_ref().map_or_else(|| "an endpoint".to_owned(), |pod| format!("pod {pod}"))))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_ports() {
        for (text, host, port) in
            [("shop:80", "shop", 80), ("[fd00::1]:9", "fd00::1", 9), ("10.0.0.1:65535", "10.0.0.1", 65535)]
        {
            assert_eq!(Authority::parse(text).unwrap(), Authority { host: host.to_owned(), port });
        }
        for wrong in ["shop", "shop:", ":80", "shop:0", "shop:65536", "fd00:zz::1:80", ""] {
            let error = Authority::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_name_is_read_as_a_pods_resolver_reads_it() {
        let readings = |host: &str| -> Vec<String> {
            let authority = Authority { host: host.into(), port: 80 };
            let read = authority.readings("own");
            read.iter()
                .map(|(name, pod)| format!("{}{name}", pod.map_or(String::new(), |pod| format!("{pod}@"))))
                .collect()
        };
        assert_eq!(readings("shop"), ["own/shop"]);
        assert_eq!(readings("shop.other"), ["shop@own/other", "other/shop"]);
        assert_eq!(readings("shop.other.svc"), ["other/shop"]);
        assert_eq!(readings("shop.other.svc.cluster.local."), ["other/shop"]);
        assert_eq!(readings("db-0.db.other.svc.cluster.local"), ["db-0@other/db"]);
        assert_eq!(readings("db-0.db.other"), ["db-0@other/db"]);
    }
}
