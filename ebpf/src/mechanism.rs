//! The two ways of intercepting a pod, as one: eBPF, and rules of nf_tables where the kernel lacks something for it.

use crate::{
    attachment::{PodAttachment, PodStats},
    error::InterceptError,
    interceptor::{Interceptor, PodSpec},
    nft::NftAttachment,
    rules::Rules,
};
use std::path::Path;

/// How pods are intercepted.
#[derive(Clone, Debug)]
pub enum Mechanism {
    Ebpf(Interceptor),
    Nftables,
}

/// One intercepted pod.
#[derive(Debug)]
pub enum Attached {
    Ebpf(PodAttachment),
    Nftables(NftAttachment),
}

impl Mechanism {
    /// Its name, as on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ebpf(_) => "ebpf",
            Self::Nftables => "nftables",
        }
    }

    /// Intercepts a pod, or takes it over from an earlier process.
    pub fn attach(&self, pod: &PodSpec<'_>) -> Result<Attached, InterceptError> {
        Ok(match self {
            Self::Ebpf(interceptor) => Attached::Ebpf(interceptor.attach(pod)?),
            Self::Nftables => Attached::Nftables(NftAttachment::attach(pod)?),
        })
    }
}

impl Attached {
    /// Replaces the pod's rules for connections made from now on: each is judged by the old ones or by the new ones.
    pub fn update(&mut self, rules: &Rules) -> Result<(), InterceptError> {
        match self {
            Self::Ebpf(pod) => pod.update(rules),
            Self::Nftables(pod) => pod.update(rules),
        }
    }

    /// Names the cgroup of a restarted proxy container.
    pub fn set_proxy_cgroup(&mut self, proxy_cgroup: &Path) -> Result<(), InterceptError> {
        match self {
            Self::Ebpf(pod) => pod.set_proxy_cgroup(proxy_cgroup),
            Self::Nftables(pod) => pod.set_proxy_cgroup(proxy_cgroup),
        }
    }

    /// Counters since the pod was attached; rules of nf_tables count nothing.
    pub fn stats(&self) -> Result<PodStats, InterceptError> {
        match self {
            Self::Ebpf(pod) => pod.stats(),
            Self::Nftables(_) => Ok(PodStats::default()),
        }
    }

    /// Ends the interception.
    pub fn detach(self) -> Result<(), InterceptError> {
        match self {
            Self::Ebpf(pod) => pod.detach(),
            Self::Nftables(pod) => pod.detach(),
        }
    }
}
