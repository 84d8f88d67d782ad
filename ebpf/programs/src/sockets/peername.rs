//! `getpeername(2)`: an application sees the address it connected to, not the proxy's.

use crate::{
    abi::{AF_INET, Destination},
    address,
    storage::{self, MEANT},
};
use aya_ebpf::{bindings::bpf_sock_addr, macros::cgroup_sock_addr, programs::SockAddrContext};
use core::ptr::addr_of_mut;

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel gives a valid context, and the verifier checks every access to it.
    unsafe {
        if let Some(meant) = meant(ctx.sock_addr) {
            (*ctx.sock_addr).user_ip4 = meant.address[0];
            (*ctx.sock_addr).user_port = u32::from(meant.port);
        }
    }
    1
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as in `getpeername4`.
    unsafe {
        if let Some(meant) = meant(ctx.sock_addr) {
            let shown = if meant.family == AF_INET { address::mapped(meant.address[0]) } else { meant.address };
            address::write(addr_of_mut!((*ctx.sock_addr).user_ip6), shown);
            (*ctx.sock_addr).user_port = u32::from(meant.port);
        }
    }
    1
}

#[inline(always)]
unsafe fn meant(addr: *mut bpf_sock_addr) -> Option<Destination> {
    unsafe {
        let sk = (*addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        let meant = storage::get(&MEANT, sk);
        if meant.is_null() { None } else { Some(*meant) }
    }
}
