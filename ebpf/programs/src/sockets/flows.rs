//! TCP events of the pod's sockets: carries the meant destination from the application's socket to the one the proxy
//! accepts. The two meet only in the connection's addresses.

use crate::{
    abi::{AF_INET, AF_INET6, Destination, Flow, OUTBOUND_PORT},
    address,
    shared::PODS,
    storage::{self, ACCEPTED, MEANT},
};
use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock_ops},
    btf_maps::LruHashMap,
    helpers::generated::bpf_get_netns_cookie,
    macros::{btf_map, sock_ops},
    programs::SockOpsContext,
};
use core::ptr::addr_of;

/// Connections under way. An entry lives from the SYN to the proxy's side of the handshake; those of failed
/// connections are the first to be evicted.
#[btf_map]
static FLOWS: LruHashMap<Flow, Destination, 16384> = LruHashMap::new();

#[sock_ops]
pub fn flows(ctx: SockOpsContext) -> u32 {
    // SAFETY: the kernel gives a valid context, and the verifier checks every access to it.
    unsafe {
        let ops = ctx.ops;
        let op = (*ops).op;
        if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
            if u32::from_be((*ops).remote_port) == u32::from(OUTBOUND_PORT) {
                leave(ops);
            }
        } else if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB && (*ops).local_port == u32::from(OUTBOUND_PORT) {
            arrive(ops);
        }
    }
    1
}

/// The application's SYN is about to leave.
#[inline(always)]
unsafe fn leave(ops: *mut bpf_sock_ops) {
    unsafe {
        let sk = (*ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        let meant = storage::get(&MEANT, sk);
        if meant.is_null() {
            return;
        }
        let meant = *meant;
        let Some(mut flow) = flow(ops) else { return };
        flow.source_port = (*ops).local_port as u16;
        flow.destination_port = OUTBOUND_PORT;
        // Fails only without memory: then the proxy learns no destination and closes the connection.
        let _ = FLOWS.insert(&flow, &meant, 0);
    }
}

/// The proxy's side of the handshake is done; its socket waits to be accepted.
#[inline(always)]
unsafe fn arrive(ops: *mut bpf_sock_ops) {
    unsafe {
        let sk = (*ops).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        let Some(mut flow) = flow(ops) else { return };
        core::mem::swap(&mut flow.source, &mut flow.destination);
        flow.source_port = u32::from_be((*ops).remote_port) as u16;
        flow.destination_port = OUTBOUND_PORT;
        let Some(meant) = FLOWS.get(&flow) else { return };
        let meant = *meant;
        if storage::put(&ACCEPTED, sk, &meant) {
            let _ = FLOWS.remove(&flow);
        }
    }
}

/// Namespace and addresses, from this socket's side; nothing for namespaces of no intercepted pod.
#[inline(always)]
unsafe fn flow(ops: *mut bpf_sock_ops) -> Option<Flow> {
    unsafe {
        let netns = bpf_get_netns_cookie(ops.cast());
        PODS.get(&netns)?;
        let remote = address::read(addr_of!((*ops).remote_ip6));
        // A v4-mapped socket is of the IPv6 family but has its IPv4 addresses filled in.
        let (family, source, destination) = if (*ops).family == u32::from(AF_INET) || address::is_mapped(&remote) {
            (AF_INET, address::widened((*ops).local_ip4), address::widened((*ops).remote_ip4))
        } else {
            (AF_INET6, address::read(addr_of!((*ops).local_ip6)), remote)
        };
        Some(Flow { netns, family: u32::from(family), source_port: 0, destination_port: 0, source, destination })
    }
}
