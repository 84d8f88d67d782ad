//! One TrafficTarget, compiled: who may call, and what.

use crate::decide::RequestHead;
use crate::identity::SpiffeId;
use crate::route::{GroupRef, HttpMatch};
use crate::trace::Trace;

/// A compiled TrafficTarget whose destination is this workload.
#[derive(Debug)]
pub(crate) struct Policy {
    /// `ns/name` of the TrafficTarget.
    pub name: String,
    pub sources: Vec<SpiffeId>,
    pub http: Vec<HttpRule>,
    pub tcp: Vec<TcpRule>,
}

/// Allows the matches of a route group that are listed; all of them if none is.
#[derive(Debug)]
pub(crate) struct HttpRule {
    pub group: GroupRef,
    pub matches: Vec<String>,
}

/// Allows the ports of a TCP route.
#[derive(Debug)]
pub(crate) struct TcpRule {
    /// `ns/name` of the TCP route.
    pub name: String,
    /// None: there is no such route. Empty: every port.
    pub ports: Option<Vec<u16>>,
}

/// The route group or TCP route that allowed, and the name of the match in it.
pub(crate) type Rule<'s> = (&'s str, &'s str);

impl Policy {
    /// The rule that allows this traffic from one of the sources; what does not match goes to `trace`.
    pub fn allows<'s>(&'s self, port: u16, head: Option<&RequestHead<'_>>, trace: &mut impl Trace) -> Option<Rule<'s>> {
        let tcp = self.tcp_rule(port, trace);
        if !self.tcp.is_empty() && tcp.is_none() {
            return None;
        }
        if self.http.is_empty() {
            if tcp.is_none() {
                trace.step(|| format!("TrafficTarget {} has no rules", self.name));
            }
            return tcp;
        }
        match head {
            Some(head) => self.http_rule(head, trace),
            None => {
                trace.step(|| {
                    format!("TrafficTarget {} allows only HTTP requests, and this connection is opaque", self.name)
                });
                None
            }
        }
    }

    fn tcp_rule<'s>(&'s self, port: u16, trace: &mut impl Trace) -> Option<Rule<'s>> {
        for rule in &self.tcp {
            match &rule.ports {
                Some(ports) if ports.is_empty() || ports.contains(&port) => return Some((&rule.name, "")),
                Some(ports) => trace.step(|| {
                    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                    format!(
                        "TrafficTarget {}: port {port} is not one of {} of TCPRoute {}",
                        self.name,
                        ports.join(", "),
                        rule.name
                    )
                }),
                None => trace.step(|| format!("TrafficTarget {}: there is no TCPRoute {}", self.name, rule.name)),
            }
        }
        None
    }

    fn http_rule<'s>(&'s self, head: &RequestHead<'_>, trace: &mut impl Trace) -> Option<Rule<'s>> {
        for rule in &self.http {
            let Some(group) = &rule.group.group else {
                trace.step(|| format!("TrafficTarget {}: there is no HTTPRouteGroup {}", self.name, rule.group.name));
                continue;
            };
            if group.matches.is_empty() {
                trace.step(|| format!("TrafficTarget {}: HTTPRouteGroup {} is empty", self.name, group.name));
            }
            for route in group.matches.iter().filter(|route| rule.covers(route)) {
                match route.mismatch(head) {
                    None => return Some((&group.name, &route.name)),
                    Some(mismatch) => trace.step(|| {
                        format!("TrafficTarget {}: route {} of {}: {mismatch}", self.name, route.name, group.name)
                    }),
                }
            }
            for missing in rule.matches.iter().filter(|name| group.matches.iter().all(|route| route.name != **name)) {
                trace.step(|| {
                    format!("TrafficTarget {}: HTTPRouteGroup {} has no match {missing}", self.name, group.name)
                });
            }
        }
        None
    }
}

impl HttpRule {
    fn covers(&self, route: &HttpMatch) -> bool {
        self.matches.is_empty() || self.matches.contains(&route.name)
    }
}
