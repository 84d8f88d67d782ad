//! Attached to the proxy's own cgroup: whoever listens on a capture port there is the pod's proxy.

use crate::{
    abi::{AF_INET, AF_INET6, INBOUND_PORT, ListenerKey, OUTBOUND_PORT},
    address,
    shared::{LISTENERS, PODS},
};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST, BPF_SOCK_OPS_TCP_LISTEN_CB, bpf_sock_ops},
    helpers::generated::{bpf_get_netns_cookie, bpf_sock_hash_update},
    macros::sock_ops,
    programs::SockOpsContext,
};
use core::ptr::{addr_of, addr_of_mut};

#[sock_ops]
pub fn listen(ctx: SockOpsContext) -> u32 {
    // SAFETY: the kernel gives a valid context, and the verifier checks every access to it.
    unsafe {
        let ops = ctx.ops;
        if (*ops).op != BPF_SOCK_OPS_TCP_LISTEN_CB {
            return 1;
        }
        let port = (*ops).local_port as u16;
        if port != OUTBOUND_PORT && port != INBOUND_PORT {
            return 1;
        }
        let netns = bpf_get_netns_cookie(ops.cast());
        if PODS.get(&netns).is_none() {
            return 1;
        }
        if (*ops).family == u32::from(AF_INET) {
            register(ops, ListenerKey { netns, family: AF_INET, port, pad: 0 }, BPF_ANY);
            return 1;
        }
        let local = address::read(addr_of!((*ops).local_ip6));
        if address::is_mapped(&local) {
            register(ops, ListenerKey { netns, family: AF_INET, port, pad: 0 }, BPF_ANY);
            return 1;
        }
        register(ops, ListenerKey { netns, family: AF_INET6, port, pad: 0 }, BPF_ANY);
        if local == [0; 4] {
            // A wildcard IPv6 listener takes IPv4 too, unless another one does that better.
            register(ops, ListenerKey { netns, family: AF_INET, port, pad: 0 }, BPF_NOEXIST);
        }
    }
    1
}

#[inline(always)]
unsafe fn register(ops: *mut bpf_sock_ops, mut key: ListenerKey, flags: u32) {
    // Refused for a listener without memory, or (by design) when NOEXIST finds an entry.
    unsafe {
        bpf_sock_hash_update(ops, addr_of!(LISTENERS).cast_mut().cast(), addr_of_mut!(key).cast(), u64::from(flags));
    }
}
