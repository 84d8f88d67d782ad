//! What the programs in the kernel and the loader outside agree on: keys, values, flags and ports.
//! Compiled into both (the loader includes this very file), so the two cannot drift apart.

/// IPv4, as in `sockaddr` and in every key here.
pub const AF_INET: u16 = 2;
/// IPv6. A v4-mapped address is never stored under this family: it becomes [`AF_INET`].
pub const AF_INET6: u16 = 10;

/// The proxy's listener for captured outbound connections.
pub const OUTBOUND_PORT: u16 = 15001;
/// The proxy's listener for captured inbound connections.
pub const INBOUND_PORT: u16 = 15003;
/// The proxy's DNS server, for pods with [`CAPTURE_DNS`].
pub const DNS_PORT: u16 = 15053;
/// Mesh traffic from other proxies; reaches the proxy directly.
pub const MESH_PORT: u16 = 15008;
/// Prometheus metrics of the proxy; reached directly.
pub const METRICS_PORT: u16 = 15010;
/// First and last port of the probe relays; reached directly.
pub const PROBE_PORTS: (u16, u16) = (15901, 15904);

/// One intercepted pod, keyed by its netns cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodEntry {
    /// Id of the proxy container's cgroup: connections made from there are the proxy's own.
    pub proxy_cgroup: u64,
    /// The rules in force: the first part of every key in the rule tables. Replacing this one number replaces all
    /// rules of the pod at once, so no connection is judged by a mixture of two sets.
    pub rules: u32,
    /// [`FAIL_CLOSED`], [`INCLUDE_ONLY`] and [`CAPTURE_DNS`].
    pub flags: u32,
}

/// Without a listening proxy, connections are refused instead of going direct.
pub const FAIL_CLOSED: u32 = 1;
/// The pod has inclusion ranges: only destinations inside them are captured.
pub const INCLUDE_ONLY: u32 = 2;
/// Queries for names (UDP to port 53) go to the proxy's DNS server.
pub const CAPTURE_DNS: u32 = 4;

/// An excluded port under one set of rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortKey {
    pub rules: u32,
    /// Host byte order.
    pub port: u16,
    /// [`OUTBOUND`] or [`INBOUND`].
    pub direction: u16,
}

pub const OUTBOUND: u16 = 0;
pub const INBOUND: u16 = 1;

/// The data of a longest-prefix key: a destination range under one set of rules. The first two fields always match
/// in full, so IPv4 and IPv6 ranges of all pods share one trie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeKey {
    pub rules: u32,
    pub family: u32,
    /// Network byte order; an IPv4 address is in the first word, the others are zero.
    pub address: [u32; 4],
}

/// Bits of [`RangeKey`] before the address.
pub const RANGE_KEY_FIXED_BITS: u32 = 64;

/// Where an application meant to connect to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub family: u16,
    /// Network byte order.
    pub port: u16,
    /// Network byte order; an IPv4 address is in the first word, the others are zero.
    pub address: [u32; 4],
}

/// A captured connection between its SYN and the proxy's side of the handshake, as the application sees it.
/// Addresses as in [`Destination`], ports in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub netns: u64,
    pub family: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub source: [u32; 4],
    pub destination: [u32; 4],
}

/// A listener of a pod's proxy that can accept connections of `family` captured for `port`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerKey {
    pub netns: u64,
    pub family: u16,
    /// [`OUTBOUND_PORT`] or [`INBOUND_PORT`].
    pub port: u16,
    pub pad: u32,
}

/// What happened in one pod, counted per CPU. The index of a counter is its `Counter` as a number.
pub type Counters = [u64; 8];

#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Outbound connections sent to the proxy.
    OutboundRedirected = 0,
    /// Outbound connections left alone by a rule.
    OutboundExcluded = 1,
    /// Outbound connections of the proxy itself.
    OutboundExempt = 2,
    /// Outbound connections that found no proxy: gone direct (fail open) or refused (fail closed).
    OutboundWithoutProxy = 3,
    /// Answers to the proxy's question for the original destination.
    DestinationAnswered = 4,
    /// Inbound connections steered to the proxy.
    InboundSteered = 5,
    /// Inbound connections left alone by a rule.
    InboundExcluded = 6,
    /// Inbound connections that found no proxy: gone direct (fail open) or refused (fail closed).
    InboundWithoutProxy = 7,
}
