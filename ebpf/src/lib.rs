//! Interception: the kernel sends a pod's TCP connections through its proxy. No address is translated, no packet
//! filter is written, and the pod needs no capability: eBPF programs sit at the pod's sockets (its cgroup) and at the
//! socket lookup of its network namespace.
//!
//! ```no_run
//! use fsm_ebpf::{Interceptor, PodSpec, Rules};
//! use std::{fs::File, os::fd::AsFd};
//!
//! let interceptor = Interceptor::load()?;
//! let netns = File::open("/run/netns/pod")?;
//! let pod = interceptor.attach(&PodSpec {
//!     netns: netns.as_fd(),
//!     cgroup: "/sys/fs/cgroup/pod".into(),
//!     proxy_cgroup: "/sys/fs/cgroup/pod/sidecar".into(),
//!     rules: Rules::default(),
//!     fail_closed: true,
//! })?;
//! println!("{:?}", pod.stats()?);
//! // Dropping `pod` detaches it and leaves nothing behind. After `Interceptor::open` it would stay attached.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start a pod's processes after [`Interceptor::attach`]: connections and sockets from before it are not captured, though
//! listeners of the proxy are found.

#[path = "../programs/src/abi.rs"]
mod abi;
pub mod agent;
mod attachment;
mod bpffs;
mod cgroup;
pub mod cli;
mod error;
#[cfg(test)]
mod inbound_tests;
mod interceptor;
mod listeners;
mod mechanism;
mod netns;
mod nft;
mod objects;
mod pins;
mod probe;
mod rules;
#[cfg(test)]
mod sockmap_tests;
mod sys;
mod tables;

pub use attachment::{PodAttachment, PodStats};
pub use error::InterceptError;
pub use interceptor::{Interceptor, PodSpec};
pub use mechanism::{Attached, Mechanism};
pub use nft::NftAttachment;
pub use probe::{Feature, FeatureTable, For, probe};
pub use rules::{
    DNS_CAPTURE, INBOUND_PORT_EXCLUSION_LIST, OUTBOUND_IP_RANGE_EXCLUSION_LIST, OUTBOUND_IP_RANGE_INCLUSION_LIST,
    OUTBOUND_PORT_EXCLUSION_LIST, Rules, RulesError,
};

/// The proxy's listener for captured outbound connections; it asks for `SO_ORIGINAL_DST`.
pub const OUTBOUND_PORT: u16 = abi::OUTBOUND_PORT;
/// The proxy's listener for captured inbound connections; their local address is the original destination.
pub const INBOUND_PORT: u16 = abi::INBOUND_PORT;
/// The proxy's DNS server.
pub const DNS_PORT: u16 = abi::DNS_PORT;
/// Mesh traffic from other proxies: never captured inbound.
pub const MESH_PORT: u16 = abi::MESH_PORT;
/// The proxy's Prometheus metrics: never captured inbound.
pub const METRICS_PORT: u16 = abi::METRICS_PORT;
/// First and last port of the proxy's probe relays: never captured inbound.
pub const PROBE_PORTS: (u16, u16) = abi::PROBE_PORTS;
