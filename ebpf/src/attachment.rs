//! One intercepted pod.

use crate::{
    abi::Counter,
    cgroup::Cgroup,
    error::InterceptError,
    interceptor::{PodSpec, Shared},
    listeners,
    rules::Rules,
    tables::InstalledRules,
};
use aya::programs::{
    cgroup_sock_addr::CgroupSockAddrLink, cgroup_sockopt::CgroupSockoptLink, sk_lookup::SkLookupLink,
    sock_ops::SockOpsLink,
};
use serde::Serialize;
use std::{fs::File, os::fd::BorrowedFd, path::Path, sync::Arc};

/// A pod whose connections go through its proxy. Dropping it detaches: from then on connections go direct, those
/// already captured live on.
pub struct PodAttachment {
    // Fields drop in this order: redirecting stops before what it relies on goes.
    sock_addr: Vec<CgroupSockAddrLink>,
    inbound: Option<SkLookupLink>,
    flows: Option<(SockOpsLink, CgroupSockoptLink)>,
    listen: Option<SockOpsLink>,
    entry: Registered,
}

/// What happened in a pod since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStats {
    /// Outbound connections sent to the proxy.
    pub outbound_redirected: u64,
    /// Outbound connections left alone by a rule.
    pub outbound_excluded: u64,
    /// Outbound connections of the proxy itself.
    pub outbound_exempt: u64,
    /// Outbound connections that found no proxy: gone direct (fail open) or refused (fail closed).
    pub outbound_without_proxy: u64,
    /// Answers to the proxy's question for the original destination.
    pub destinations_answered: u64,
    /// Inbound connections steered to the proxy.
    pub inbound_steered: u64,
    /// Inbound connections left alone by a rule.
    pub inbound_excluded: u64,
    /// Inbound connections that found no proxy: gone direct (fail open) or refused (fail closed).
    pub inbound_without_proxy: u64,
}

impl std::fmt::Debug for PodAttachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodAttachment").field("netns_cookie", &self.entry.netns).finish_non_exhaustive()
    }
}

impl PodAttachment {
    pub(crate) fn register(
        shared: Arc<Shared>,
        netns: u64,
        proxy_cgroup: &Cgroup,
        pod: &PodSpec<'_>,
    ) -> Result<Self, InterceptError> {
        let entry = Registered::new(shared, netns, proxy_cgroup.id, pod)?;
        Ok(Self { sock_addr: Vec::new(), inbound: None, flows: None, listen: None, entry })
    }

    pub(crate) fn connect(
        mut self,
        cgroup: &File,
        proxy_cgroup: &Cgroup,
        netns: BorrowedFd<'_>,
    ) -> Result<Self, InterceptError> {
        let shared = Arc::clone(&self.entry.shared);
        self.listen = Some(shared.attach_listen(&proxy_cgroup.dir)?);
        self.entry.find_listeners(proxy_cgroup)?;
        self.flows = Some(shared.attach_flows(cgroup)?);
        self.inbound = Some(shared.attach_inbound(self.entry.netns, netns)?);
        self.sock_addr = shared.attach_sock_addr(cgroup)?;
        Ok(self)
    }

    /// Replaces the pod's rules, for connections made from now on. Each connection is judged by the old rules or by the
    /// new ones, never by some of both. On failure the old rules stay.
    pub fn update(&mut self, rules: &Rules) -> Result<(), InterceptError> {
        self.entry.update(rules)
    }

    /// Names the cgroup of a restarted proxy container. The old one's exemption ends, and its listeners are forgotten.
    pub fn set_proxy_cgroup(&mut self, proxy_cgroup: &Path) -> Result<(), InterceptError> {
        let proxy_cgroup = Cgroup::open(proxy_cgroup)?;
        let listen = self.entry.shared.attach_listen(&proxy_cgroup.dir)?;
        self.entry.set_proxy_cgroup(proxy_cgroup.id)?;
        self.listen = Some(listen);
        self.entry.shared.tables().forget_listeners(self.entry.netns);
        // Also finds again what was reported between attaching and forgetting.
        self.entry.find_listeners(&proxy_cgroup)
    }

    /// Counters since the pod was attached.
    pub fn stats(&self) -> Result<PodStats, InterceptError> {
        let counters = self.entry.shared.tables().counters(self.entry.netns)?;
        let of = |counter: Counter| counters[counter as usize];
        Ok(PodStats {
            outbound_redirected: of(Counter::OutboundRedirected),
            outbound_excluded: of(Counter::OutboundExcluded),
            outbound_exempt: of(Counter::OutboundExempt),
            outbound_without_proxy: of(Counter::OutboundWithoutProxy),
            destinations_answered: of(Counter::DestinationAnswered),
            inbound_steered: of(Counter::InboundSteered),
            inbound_excluded: of(Counter::InboundExcluded),
            inbound_without_proxy: of(Counter::InboundWithoutProxy),
        })
    }
}

/// The pod's entries in the tables.
struct Registered {
    shared: Arc<Shared>,
    netns: u64,
    proxy_cgroup: u64,
    fail_closed: bool,
    rules: InstalledRules,
    /// The rules before the last update: a program that began under them may still be reading.
    previous: Option<InstalledRules>,
}

impl Registered {
    fn new(shared: Arc<Shared>, netns: u64, proxy_cgroup: u64, pod: &PodSpec<'_>) -> Result<Self, InterceptError> {
        let mut tables = shared.tables();
        if tables.has_pod(netns) {
            return Err(InterceptError::AlreadyAttached { netns_cookie: netns });
        }
        let rules = tables.install_rules(&pod.rules)?;
        let known =
            tables.start_counters(netns).and_then(|()| tables.set_pod(netns, proxy_cgroup, &rules, pod.fail_closed));
        if let Err(error) = known {
            tables.forget_pod(netns);
            tables.remove_rules(&rules);
            return Err(error);
        }
        drop(tables);
        Ok(Self { shared, netns, proxy_cgroup, fail_closed: pod.fail_closed, rules, previous: None })
    }

    fn update(&mut self, rules: &Rules) -> Result<(), InterceptError> {
        let mut tables = self.shared.tables();
        let installed = tables.install_rules(rules)?;
        if let Err(error) = tables.set_pod(self.netns, self.proxy_cgroup, &installed, self.fail_closed) {
            tables.remove_rules(&installed);
            return Err(error);
        }
        let replaced = std::mem::replace(&mut self.rules, installed);
        if let Some(forgotten) = self.previous.replace(replaced) {
            tables.remove_rules(&forgotten);
        }
        Ok(())
    }

    fn find_listeners(&self, proxy_cgroup: &Cgroup) -> Result<(), InterceptError> {
        let found = listeners::of_cgroup(&proxy_cgroup.path, self.netns)
            .map_err(|source| InterceptError::listeners(&proxy_cgroup.path, source))?;
        self.shared.tables().add_listeners(&found)
    }

    fn set_proxy_cgroup(&mut self, proxy_cgroup: u64) -> Result<(), InterceptError> {
        self.shared.tables().set_pod(self.netns, proxy_cgroup, &self.rules, self.fail_closed)?;
        self.proxy_cgroup = proxy_cgroup;
        Ok(())
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut tables = self.shared.tables();
        tables.forget_pod(self.netns);
        tables.remove_rules(&self.rules);
        if let Some(previous) = &self.previous {
            tables.remove_rules(previous);
        }
    }
}
