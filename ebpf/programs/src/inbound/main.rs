//! Inbound interception: steers connections that arrive at a pod to its proxy's listener. Nothing is rewritten, so
//! the accepted socket's local address is the original destination and its peer is the real client.
//!
//! A socket-lookup program cannot ask which network namespace it runs in, so it is loaded once for each pod with the
//! namespace's cookie in a table of its own. The other tables are those of the sockets object.
#![no_std]
#![no_main]

#[path = "../abi.rs"]
#[allow(dead_code, reason = "each object uses its part of what the loader agrees on")]
mod abi;
#[path = "../address.rs"]
#[allow(dead_code, reason = "nothing is written here")]
mod address;
#[path = "../shared.rs"]
mod shared;

use abi::{
    AF_INET, Counter, FAIL_CLOSED, INBOUND, INBOUND_PORT, ListenerKey, MESH_PORT, METRICS_PORT, OUTBOUND_PORT,
    PROBE_PORTS,
};
use aya_ebpf::{
    bindings::bpf_sk_lookup,
    btf_maps::Array,
    macros::{btf_map, sk_lookup},
    programs::SkLookupContext,
};
use core::ptr::addr_of;
use shared::{LISTENERS, count, pod, port_excluded};

const SK_PASS: u32 = 1;
const SK_DROP: u32 = 0;
const IPPROTO_TCP: u32 = 6;
/// The loopback interface has this index in every network namespace.
const LOOPBACK: u32 = 1;

/// Cookie of the network namespace this copy is attached to.
#[btf_map]
static NETNS: Array<u64, 1> = Array::new();

#[sk_lookup]
pub fn inbound(ctx: SkLookupContext) -> u32 {
    let Some(&netns) = NETNS.get(0) else { return SK_PASS };
    // SAFETY: the kernel gives a valid context, and the verifier checks every access to it.
    let (protocol, family, port, from_inside) = unsafe {
        let lookup = ctx.lookup;
        ((*lookup).protocol, (*lookup).family as u16, (*lookup).local_port as u16, from_inside(lookup))
    };
    let Some(pod) = pod(netns) else { return SK_PASS };
    if protocol != IPPROTO_TCP {
        return SK_PASS;
    }
    if from_inside {
        // Captured outbound connections are spread over 127.0.0.0/8; the proxy may listen on 127.0.0.1 only.
        if family == AF_INET && port == OUTBOUND_PORT {
            assign(&ctx, netns, family, OUTBOUND_PORT);
        }
        return SK_PASS;
    }
    if port == MESH_PORT || port == METRICS_PORT || (port >= PROBE_PORTS.0 && port <= PROBE_PORTS.1) {
        return SK_PASS;
    }
    if port_excluded(&pod, INBOUND, port) {
        count(netns, Counter::InboundExcluded);
        return SK_PASS;
    }
    if assign(&ctx, netns, family, INBOUND_PORT) {
        count(netns, Counter::InboundSteered);
        return SK_PASS;
    }
    count(netns, Counter::InboundWithoutProxy);
    if pod.flags & FAIL_CLOSED != 0 { SK_DROP } else { SK_PASS }
}

/// Whether the connection comes from the pod itself. One to the pod's own address travels over loopback, but shows the
/// interface the address belongs to; then its source is the same address, which nothing from outside can have.
///
/// # Safety
/// `lookup` is the context of a socket-lookup program.
#[inline(always)]
unsafe fn from_inside(lookup: *const bpf_sk_lookup) -> bool {
    unsafe {
        if (*lookup).ingress_ifindex == LOOPBACK {
            return true;
        }
        if (*lookup).family == u32::from(AF_INET) {
            let remote = (*lookup).remote_ip4;
            return remote == (*lookup).local_ip4 || u32::from_be(remote) >> 24 == 127;
        }
        address::read(addr_of!((*lookup).remote_ip6)) == address::read(addr_of!((*lookup).local_ip6))
    }
}

/// Gives the connection to the proxy's listener for `port`, and says whether there is one.
#[inline(always)]
fn assign(ctx: &SkLookupContext, netns: u64, family: u16, port: u16) -> bool {
    LISTENERS.redirect_sk_lookup(ctx, &ListenerKey { netns, family, port, pad: 0 }, 0).is_ok()
}
