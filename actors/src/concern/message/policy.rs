//! SMI objects as messages.

use fsm_proxy_config::proto::{self, inbound_rule::Route};

use crate::catalog::Mesh;
use crate::catalog::view::{RouteGroup, Rule, Split, Target, TcpPorts};

/// The message of a TrafficTarget.
pub fn inbound_policy(mesh: &Mesh, target: &Target) -> proto::InboundPolicy {
    let mut sources: Vec<String> =
        target.sources.iter().filter_map(|source| Some(mesh.identity(source)?.to_string())).collect();
    sources.sort();
    let rules = target.rules.iter().map(|rule| {
        let route = match rule {
            Rule::Http { group, matches } => {
                Route::Http(proto::RouteGroupRef { group: group.to_string(), matches: matches.clone() })
            }
            Rule::Tcp { route } => Route::Tcp(route.to_string()),
        };
        proto::InboundRule { route: Some(route) }
    });
    proto::InboundPolicy { sources, rules: rules.collect() }
}

/// The message of an HTTPRouteGroup.
pub fn route_group(group: &RouteGroup) -> proto::RouteGroup {
    let matches = group.matches.iter().map(|each| {
        let mut methods = each.methods.clone();
        methods.sort();
        methods.dedup();
        if methods.iter().any(|method| method == "*") {
            methods.clear();
        }
        let mut headers: Vec<proto::HeaderMatch> = each
            .header_pairs()
            .map(|(name, value)| proto::HeaderMatch { name: name.to_ascii_lowercase(), value_regex: value.to_owned() })
            .collect();
        headers.sort_by(|one, other| (&one.name, &one.value_regex).cmp(&(&other.name, &other.value_regex)));
        proto::HttpMatch { name: each.name.clone(), path_regex: each.path_regex.clone(), methods, headers }
    });
    proto::RouteGroup { matches: matches.collect() }
}

/// The message of a TCPRoute.
pub fn tcp_route(route: &TcpPorts) -> proto::TcpRoute {
    proto::TcpRoute { ports: route.ports.iter().map(|port| u32::from(*port)).collect() }
}

/// The message of a TrafficSplit.
pub fn split(split: &Split) -> proto::Split {
    let backends =
        split.backends.iter().map(|(service, weight)| proto::Backend { service: service.to_string(), weight: *weight });
    proto::Split {
        service: split.apex.to_string(),
        backends: backends.collect(),
        route_groups: split.route_groups.iter().map(ToString::to_string).collect(),
    }
}
