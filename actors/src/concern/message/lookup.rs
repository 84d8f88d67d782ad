//! What sidecars answer to queries for names.

use fsm_api::mesh_config::{DnsIp, LocalDnsProxy};
use fsm_proxy_config::proto;

/// The records of the mesh, if names are captured.
pub fn names(proxy: &LocalDnsProxy) -> Option<proto::Names> {
    proxy.enable.then(|| {
        let upstreams = [&proxy.primary_upstream_dns_server_ip_addr, &proxy.secondary_upstream_dns_server_ip_addr];
        let wildcard = &proxy.wildcard;
        let of_wildcard = |ips: &[DnsIp]| if wildcard.enable { addresses(ips) } else { Vec::new() };
        proto::Names {
            upstreams: upstreams.into_iter().filter(|ip| !ip.is_empty()).cloned().collect(),
            records: proxy
                .db
                .iter()
                .map(|entry| proto::NameRecord { name: entry.dn.clone(), addresses: addresses(&entry.ips) })
                .collect(),
            wildcard: of_wildcard(&wildcard.ips),
            replaced: of_wildcard(&wildcard.los),
            mapped: proxy.generate_ipv6_based_on_ipv4,
        }
    })
}

/// Of both families, in the order given.
fn addresses(ips: &[DnsIp]) -> Vec<String> {
    ips.iter().flat_map(|ip| [&ip.ipv4, &ip.ipv6]).filter(|ip| !ip.is_empty()).cloned().collect()
}
