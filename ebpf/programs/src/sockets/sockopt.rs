//! `getsockopt(2)`: answers `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST` on sockets the proxy accepted, in the form
//! netfilter would. Every other option passes untouched.

use crate::{
    abi::{AF_INET, AF_INET6, Counter, Destination},
    shared::count,
    storage::{self, ACCEPTED},
};
use aya_ebpf::{
    bindings::bpf_sockopt, helpers::generated::bpf_get_netns_cookie, macros::cgroup_sockopt, programs::SockoptContext,
};
use core::ptr::{addr_of_mut, write_volatile};

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
/// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST` have the same number.
const ORIGINAL_DST: i32 = 80;
/// Sizes of `sockaddr_in` and `sockaddr_in6`.
const SOCKADDR_IN: usize = 16;
const SOCKADDR_IN6: usize = 28;
/// The kernel gives a program at most one page of an option's value.
const PAGE: i32 = 4096;

#[cgroup_sockopt(getsockopt)]
pub fn original_dst(ctx: SockoptContext) -> i32 {
    // SAFETY: the kernel gives a valid context, and the verifier checks every access to it.
    unsafe {
        let opt = ctx.sockopt;
        if (*opt).optname == ORIGINAL_DST && ((*opt).level == SOL_IP || (*opt).level == SOL_IPV6) {
            answer(opt);
        } else if (*opt).optlen > PAGE {
            // Tells the kernel to keep its own value, which did not fit into what this program got to see.
            (*opt).optlen = 0;
        }
    }
    1
}

#[inline(always)]
unsafe fn answer(opt: *mut bpf_sockopt) {
    unsafe {
        let sk = (*opt).__bindgen_anon_1.sk;
        if sk.is_null() {
            return;
        }
        let meant = storage::get(&ACCEPTED, sk);
        if meant.is_null() {
            return;
        }
        let meant: Destination = *meant;
        let start = (*opt).__bindgen_anon_2.optval as usize;
        let end = (*opt).__bindgen_anon_3.optval_end as usize;
        let written = if (*opt).level == SOL_IP && meant.family == AF_INET {
            if start + SOCKADDR_IN > end {
                return;
            }
            let value = start as *mut u16;
            *value = AF_INET;
            *value.add(1) = meant.port;
            let words = start as *mut u32;
            *words.add(1) = meant.address[0];
            *words.add(2) = 0;
            *words.add(3) = 0;
            SOCKADDR_IN
        } else if (*opt).level == SOL_IPV6 && meant.family == AF_INET6 {
            if start + SOCKADDR_IN6 > end {
                return;
            }
            let value = start as *mut u16;
            *value = AF_INET6;
            *value.add(1) = meant.port;
            let words = start as *mut u32;
            *words.add(1) = 0; // flow information
            *words.add(2) = meant.address[0];
            *words.add(3) = meant.address[1];
            *words.add(4) = meant.address[2];
            *words.add(5) = meant.address[3];
            *words.add(6) = 0; // scope
            SOCKADDR_IN6
        } else {
            return;
        };
        // Volatile: merged into one 8-byte store, the two are refused by the verifier.
        write_volatile(addr_of_mut!((*opt).optlen), written as i32);
        write_volatile(addr_of_mut!((*opt).retval), 0);
        count(bpf_get_netns_cookie(opt.cast()), Counter::DestinationAnswered);
    }
}
