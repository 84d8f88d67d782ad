//! Decisions as sentences.

use std::fmt;

use super::{Allow, Backend, Decision, Forward, Passthrough};

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(forward) => forward.fmt(f),
            Self::Passthrough(passthrough) => passthrough.fmt(f),
            Self::Allow(allow) => allow.fmt(f),
            Self::Refuse(refusal) => {
                write!(f, "refused with {} ({}): {refusal}", refusal.status().as_u16(), refusal.kind)
            }
        }
    }
}

impl fmt::Display for Forward<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "forwarded to {}", if self.split.is_some() { "one of " } else { "" })?;
        for (index, (backend, weight)) in self.backends().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            match self.split {
                Some(_) => write!(f, "{separator}{backend} with weight {weight}")?,
                None => write!(f, "{separator}{backend}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Backend<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} [", self.service, self.port)?;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            write!(f, "{}{} ", if index == 0 { "" } else { ", " }, endpoint.address)?;
            match &endpoint.identity {
                Some(identity) => write!(f, "as {identity}")?,
                None => f.write_str("in plain text")?,
            }
        }
        f.write_str("]")
    }
}

impl fmt::Display for Passthrough<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Egress => f.write_str("passed through: egress is on"),
            Self::Unmeshed(endpoint) => write!(f, "passed through: {} has no proxy", endpoint.address),
        }
    }
}

impl fmt::Display for Allow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.policy, self.rule) {
            (Some(policy), Some((route, ""))) => write!(f, "allowed by TrafficTarget {policy}, TCPRoute {route}"),
            (Some(policy), Some((group, name))) => {
                write!(f, "allowed by TrafficTarget {policy}, route {name} of HTTPRouteGroup {group}")
            }
            (Some(policy), None) => write!(f, "allowed by TrafficTarget {policy}"),
            (None, _) => f.write_str("allowed: permissive mode"),
        }
    }
}
