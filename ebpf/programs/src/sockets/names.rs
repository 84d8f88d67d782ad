//! Queries for names on UDP sockets that are not connected: they go to the proxy's DNS server, and its answers seem to come from the
//! name server that was asked, as resolvers drop others.

use crate::{
    abi::{AF_INET, AF_INET6, DNS_PORT, Destination},
    address,
    connect::{LOOPBACK4, LOOPBACK6, PROCEED, redirect4, redirect6},
    storage::{self, MEANT},
};
use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use core::ptr::addr_of_mut;

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel gives a valid context, and the verifier checks every access to it.
    unsafe { redirect4(ctx.sock_addr) };
    PROCEED
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as in `sendmsg4`.
    unsafe { redirect6(ctx.sock_addr) };
    PROCEED
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: as in `sendmsg4`.
    unsafe {
        let addr = ctx.sock_addr;
        if (*addr).user_ip4 == LOOPBACK4
            && let Some(asked) = asked(addr)
            && asked.family == AF_INET
        {
            (*addr).user_ip4 = asked.address[0];
            (*addr).user_port = u32::from(asked.port);
        }
    }
    PROCEED
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as in `sendmsg4`.
    unsafe {
        let addr = ctx.sock_addr;
        let words = addr_of_mut!((*addr).user_ip6);
        let from = address::read(words);
        let family = if from == LOOPBACK6 {
            AF_INET6
        } else if from == address::mapped(LOOPBACK4) {
            AF_INET
        } else {
            return PROCEED;
        };
        if let Some(asked) = asked(addr)
            && asked.family == family
        {
            let shown = if family == AF_INET { address::mapped(asked.address[0]) } else { asked.address };
            address::write(words, shown);
            (*addr).user_port = u32::from(asked.port);
        }
    }
    PROCEED
}

/// The name server that was asked on this socket, if what was received came from the port of the proxy's.
///
/// # Safety
/// `addr` is the context of a recvmsg program.
#[inline(always)]
unsafe fn asked(addr: *mut bpf_sock_addr) -> Option<Destination> {
    unsafe {
        let sk = (*addr).__bindgen_anon_1.sk;
        if sk.is_null() || (*addr).user_port as u16 != DNS_PORT.to_be() {
            return None;
        }
        let asked = storage::get(&MEANT, sk);
        if asked.is_null() { None } else { Some(*asked) }
    }
}
