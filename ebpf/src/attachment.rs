//! One intercepted pod.

use crate::{
    abi::Counter,
    cgroup::Cgroup,
    error::InterceptError,
    interceptor::{PodSpec, Shared},
    listeners,
    pins::Places,
    rules::Rules,
    tables::InstalledRules,
};
use serde::Serialize;
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
};

/// A pod whose connections go through its proxy. Dropping it detaches if the interceptor was loaded, and leaves
/// everything in place if it was opened: from detaching on connections go direct, those already captured live on.
pub struct PodAttachment {
    shared: Arc<Shared>,
    netns: u64,
    proxy_cgroup: u64,
    fail_closed: bool,
    rules: InstalledRules,
    /// The rules before the last update: a program that began under them may still be reading.
    previous: Option<InstalledRules>,
    detached: bool,
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

impl std::ops::AddAssign for PodStats {
    fn add_assign(&mut self, other: Self) {
        self.outbound_redirected += other.outbound_redirected;
        self.outbound_excluded += other.outbound_excluded;
        self.outbound_exempt += other.outbound_exempt;
        self.outbound_without_proxy += other.outbound_without_proxy;
        self.destinations_answered += other.destinations_answered;
        self.inbound_steered += other.inbound_steered;
        self.inbound_excluded += other.inbound_excluded;
        self.inbound_without_proxy += other.inbound_without_proxy;
    }
}

impl std::fmt::Debug for PodAttachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodAttachment").field("netns_cookie", &self.netns).finish_non_exhaustive()
    }
}

impl PodAttachment {
    /// The pod's entry in the table of pods is what turns everything on: without it the programs do nothing. So it is
    /// written last, and whoever finds links without it knows that attaching was not finished.
    pub(crate) fn new(
        shared: Arc<Shared>,
        netns: u64,
        places: &Places<'_>,
        pod: &PodSpec<'_>,
    ) -> Result<Self, InterceptError> {
        if !shared.attached().insert(netns) {
            return Err(InterceptError::AlreadyAttached { netns_cookie: netns });
        }
        let former = shared.tables().take_over(netns);
        let installed = match set_up(&shared, netns, places, pod, former.as_ref().map(|(pod, _)| pod.proxy_cgroup)) {
            Ok(installed) => installed,
            Err(error) => {
                if let Some((_, rules)) = former {
                    shared.tables().give_back(netns, rules);
                } else if let Err(error) = shared.release(netns) {
                    tracing::warn!(netns, %error, "links of a pod that could not be attached stay behind");
                }
                shared.attached().remove(&netns);
                return Err(error);
            }
        };
        if let Err(error) = shared.supersede_others(netns) {
            tracing::warn!(netns, %error, "an agent of another version still redirects the pod's connections");
        }
        Ok(Self {
            shared,
            netns,
            proxy_cgroup: places.proxy.id,
            fail_closed: pod.fail_closed,
            rules: installed,
            previous: former.map(|(_, rules)| rules),
            detached: false,
        })
    }

    /// Replaces the pod's rules, for connections made from now on. Each connection is judged by the old rules or by the
    /// new ones, never by some of both. On failure the old rules stay.
    pub fn update(&mut self, rules: &Rules) -> Result<(), InterceptError> {
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

    /// Names the cgroup of a restarted proxy container. The old one's exemption ends, and its listeners are forgotten.
    pub fn set_proxy_cgroup(&mut self, proxy_cgroup: &Path) -> Result<(), InterceptError> {
        let proxy = Cgroup::open(proxy_cgroup)?;
        let nowhere = OwnedFd::from(proxy.dir.try_clone().map_err(|e| InterceptError::link("listen", "attached", e))?);
        let places = Places { pod: &proxy, proxy: &proxy, netns: nowhere.as_fd() };
        self.shared.attach_to_proxy(self.netns, &places)?;
        self.shared.tables().set_pod(self.netns, proxy.id, &self.rules, self.fail_closed)?;
        self.proxy_cgroup = proxy.id;
        self.shared.tables().forget_listeners(self.netns);
        // Also finds again what was reported between attaching and forgetting.
        self.find_listeners(&proxy)
    }

    fn find_listeners(&self, proxy: &Cgroup) -> Result<(), InterceptError> {
        find_listeners(&self.shared, self.netns, proxy)
    }

    /// Ends the interception, whichever way the interceptor was made.
    pub fn detach(mut self) -> Result<(), InterceptError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), InterceptError> {
        self.detached = true;
        let released = self.shared.release(self.netns);
        let mut tables = self.shared.tables();
        tables.remove_rules(&self.rules);
        if let Some(previous) = &self.previous {
            tables.remove_rules(previous);
        }
        drop(tables);
        self.shared.attached().remove(&self.netns);
        released.map_err(|source| InterceptError::PinFolder { path: self.shared.bpffs.pods(), source })
    }

    /// Counters since the pod was attached.
    pub fn stats(&self) -> Result<PodStats, InterceptError> {
        let counters = self.shared.tables().counters(self.netns)?;
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

impl Drop for PodAttachment {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        if self.shared.bpffs.outlives_us() {
            let mut tables = self.shared.tables();
            tables.give_back(self.netns, std::mem::take(&mut self.rules));
            if let Some(previous) = self.previous.take() {
                tables.remove_rules(&previous);
            }
            drop(tables);
            self.shared.attached().remove(&self.netns);
        } else if let Err(error) = self.end() {
            tracing::warn!(netns = self.netns, %error, "links of a pod end later, with this process");
        }
    }
}

/// Attaches, and turns on with the pod's entry. `former_proxy` is the proxy's cgroup as an earlier process knew it.
fn set_up(
    shared: &Shared,
    netns: u64,
    places: &Places<'_>,
    pod: &PodSpec<'_>,
    former_proxy: Option<u64>,
) -> Result<InstalledRules, InterceptError> {
    shared.attach(netns, places)?;
    if former_proxy.is_some_and(|former| former != places.proxy.id) {
        shared.tables().forget_listeners(netns);
    }
    find_listeners(shared, netns, places.proxy)?;
    let mut tables = shared.tables();
    let rules = tables.install_rules(&pod.rules)?;
    let known =
        tables.start_counters(netns).and_then(|()| tables.set_pod(netns, places.proxy.id, &rules, pod.fail_closed));
    if let Err(error) = known {
        tables.remove_rules(&rules);
        return Err(error);
    }
    drop(tables);
    // A listener is reported only once the pod is known: the proxy may have begun to listen in between.
    if let Err(error) = find_listeners(shared, netns, places.proxy) {
        shared.tables().give_back(netns, rules);
        return Err(error);
    }
    Ok(rules)
}

fn find_listeners(shared: &Shared, netns: u64, proxy: &Cgroup) -> Result<(), InterceptError> {
    let found =
        listeners::of_cgroup(&proxy.path, netns).map_err(|source| InterceptError::listeners(&proxy.path, source))?;
    shared.tables().add_listeners(&found)
}
