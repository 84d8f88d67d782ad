//! One TrafficSplit, compiled for one port of its service.

use crate::decide::{RefusalKind, RequestHead};
use crate::pool::WeightedPool;
use crate::route::GroupRef;
use crate::trace::Trace;

/// A TrafficSplit on one port.
#[derive(Debug)]
pub(crate) struct Split {
    /// `ns/name` of the TrafficSplit.
    pub name: String,
    /// Empty: it applies to everything.
    pub groups: Vec<GroupRef>,
    /// Backends that can take traffic.
    pub pools: Vec<WeightedPool>,
    /// A sentence for each backend that can't.
    pub left_out: Vec<String>,
    /// What a request meets when there are no pools.
    pub without_pools: RefusalKind,
}

impl Split {
    /// Whether it decides about this request or connection.
    pub fn applies(&self, head: Option<&RequestHead<'_>>, trace: &mut impl Trace) -> bool {
        if self.groups.is_empty() {
            return true;
        }
        let Some(head) = head else {
            trace.step(|| {
                format!("TrafficSplit {} is for certain HTTP requests, and this connection is opaque", self.name)
            });
            return false;
        };
        for reference in &self.groups {
            let Some(group) = &reference.group else {
                trace.step(|| format!("TrafficSplit {}: there is no HTTPRouteGroup {}", self.name, reference.name));
                continue;
            };
            for route in &group.matches {
                match route.mismatch(head) {
                    None => {
                        trace.step(|| {
                            format!("TrafficSplit {}: route {} of {} matches", self.name, route.name, group.name)
                        });
                        return true;
                    }
                    Some(mismatch) => trace.step(|| {
                        format!("TrafficSplit {}: route {} of {}: {mismatch}", self.name, route.name, group.name)
                    }),
                }
            }
        }
        false
    }
}
