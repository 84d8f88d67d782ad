//! The second mechanism, for kernels that lack something eBPF needs: rules of nf_tables in the pod's network namespace,
//! set by the node's agent. They translate addresses, so each connection costs an entry of connection tracking; in turn they
//! belong to the namespace, outlive whoever set them, and go with it.
//!
//! Against eBPF: without a proxy connections are always refused (there is no failing open), nothing is counted, and what the
//! proxy accepts from outside has the original destination in `SO_ORIGINAL_DST`, not in its local address.

mod batch;
mod ruleset;

use crate::{cgroup::Cgroup, error::InterceptError, interceptor::PodSpec, netns, rules::Rules};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// A pod whose connections go through its proxy by rules of nf_tables. They stay when it is dropped.
#[derive(Debug)]
pub struct NftAttachment {
    netns: OwnedFd,
    proxy: ruleset::ProxyCgroup,
    rules: Rules,
}

impl NftAttachment {
    /// Sets the rules, in place of any that an earlier process set, in one transaction.
    pub fn attach(pod: &PodSpec<'_>) -> Result<Self, InterceptError> {
        let netns = pod.netns.try_clone_to_owned().map_err(InterceptError::Netns)?;
        let attachment = Self { netns, proxy: proxy(&pod.proxy_cgroup)?, rules: pod.rules.clone() };
        attachment.set()?;
        Ok(attachment)
    }

    /// Replaces the pod's rules, for connections made from now on, in one transaction.
    pub fn update(&mut self, rules: &Rules) -> Result<(), InterceptError> {
        let former = std::mem::replace(&mut self.rules, rules.clone());
        self.set().inspect_err(|_| self.rules = former)
    }

    /// Names the cgroup of a restarted proxy container. The old one's exemption ends.
    pub fn set_proxy_cgroup(&mut self, proxy_cgroup: &Path) -> Result<(), InterceptError> {
        let former = std::mem::replace(&mut self.proxy, proxy(proxy_cgroup)?);
        self.set().inspect_err(|_| self.proxy = former)
    }

    /// Removes the rules.
    pub fn detach(self) -> Result<(), InterceptError> {
        self.commit(ruleset::removed())
    }

    fn set(&self) -> Result<(), InterceptError> {
        self.commit(ruleset::ruleset(self.proxy, &self.rules))
    }

    fn commit(&self, batch: batch::Batch) -> Result<(), InterceptError> {
        netns::inside(self.netns.as_fd(), || {
            // The kernel counts a cgroup's level from the root that the caller sees.
            if let Ok(of_node) = File::open("/proc/1/ns/cgroup") {
                let _ = setns(of_node, CloneFlags::CLONE_NEWCGROUP);
            }
            batch.commit()
        })
        .map_err(InterceptError::nft)
    }
}

fn proxy(path: &Path) -> Result<ruleset::ProxyCgroup, InterceptError> {
    let id = Cgroup::open(path)?.id;
    let level = path.ancestors().take_while(|dir| Cgroup::open(dir).is_ok()).count().saturating_sub(1) as u32;
    Ok(ruleset::ProxyCgroup { id, level })
}

/// Tries everything for real, in a namespace of its own.
pub(crate) fn try_out(proxy_cgroup: &Path) -> Result<(), InterceptError> {
    let netns = netns::fresh().map_err(InterceptError::Netns)?;
    let everything = "10.0.0.0/8 fd00::/8".split(' ').filter_map(|range| range.parse().ok());
    let rules = Rules {
        outbound_port_exclusions: [1].into(),
        outbound_ip_range_exclusions: everything.clone().collect(),
        outbound_ip_range_inclusions: everything.collect(),
        inbound_port_exclusions: [1].into(),
        dns_capture: true,
    };
    let pod = PodSpec {
        netns: netns.as_fd(),
        cgroup: proxy_cgroup.to_owned(),
        proxy_cgroup: proxy_cgroup.to_owned(),
        rules,
        fail_closed: true,
    };
    NftAttachment::attach(&pod)?.detach()
}
