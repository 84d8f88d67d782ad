//! `connect(2)`: decides whether a connection is captured, remembers where it was meant to go, and redirects it. Connected UDP
//! sockets that ask for names are treated alike.

use crate::{
    abi::{
        AF_INET, AF_INET6, CAPTURE_DNS, Counter, DNS_PORT, Destination, FAIL_CLOSED, INCLUDE_ONLY, ListenerKey,
        OUTBOUND, OUTBOUND_PORT, PodEntry, RANGE_KEY_FIXED_BITS, RangeKey,
    },
    address,
    shared::{LISTENERS, count, pod, port_excluded},
    storage::{self, MEANT},
};
use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, bpf_sock_addr},
    btf_maps::{LpmTrie, lpm_trie::Key},
    helpers::generated::{bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_map_lookup_elem, bpf_sk_release},
    macros::{btf_map, cgroup_sock_addr},
    programs::SockAddrContext,
};
use core::ptr::{addr_of, addr_of_mut};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
/// Where resolvers send their queries.
const NAME_SERVER_PORT: u16 = 53;
/// The verdict of a connect program; the other one would fail the call with EPERM.
pub const PROCEED: i32 = 1;
pub const LOOPBACK4: u32 = 0x7f00_0001u32.to_be();
pub const LOOPBACK6: [u32; 4] = [0, 0, 0, 1u32.to_be()];

/// Destination ranges that are not captured.
#[btf_map]
static EXCLUDED_RANGES: LpmTrie<RangeKey, u8, 262144, { BPF_F_NO_PREALLOC as usize }> = LpmTrie::new();

/// Destination ranges that are captured, for pods with `INCLUDE_ONLY`.
#[btf_map]
static INCLUDED_RANGES: LpmTrie<RangeKey, u8, 262144, { BPF_F_NO_PREALLOC as usize }> = LpmTrie::new();

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel gives a valid context, and the verifier checks every access to it.
    unsafe { redirect4(ctx.sock_addr) };
    PROCEED
}

/// An AF_INET6 socket that connects to a v4-mapped address runs this program and never `connect4`.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as in `connect4`.
    unsafe { redirect6(ctx.sock_addr) };
    PROCEED
}

/// Puts the proxy's address in place of where a socket is to connect or send to, if it is captured.
///
/// # Safety
/// `addr` is the context of a program that may change the destination, of IPv4.
#[inline(always)]
pub unsafe fn redirect4(addr: *mut bpf_sock_addr) {
    unsafe {
        let ip4 = (*addr).user_ip4;
        let port = (*addr).user_port as u16;
        let meant = Destination { family: AF_INET, port, address: address::widened(ip4) };
        if let Some(to) = captured(addr, &meant) {
            (*addr).user_ip4 = proxy_ip4(to, &meant);
            (*addr).user_port = u32::from(to.to_be());
        }
    }
}

/// As [`redirect4`], of IPv6.
///
/// # Safety
/// As for [`redirect4`].
#[inline(always)]
pub unsafe fn redirect6(addr: *mut bpf_sock_addr) {
    unsafe {
        let words = addr_of_mut!((*addr).user_ip6);
        let ip6 = address::read(words);
        let port = (*addr).user_port as u16;
        let mapped = address::is_mapped(&ip6);
        let meant = if mapped {
            Destination { family: AF_INET, port, address: address::widened(ip6[3]) }
        } else {
            Destination { family: AF_INET6, port, address: ip6 }
        };
        if let Some(to) = captured(addr, &meant) {
            let proxy = if mapped { address::mapped(proxy_ip4(to, &meant)) } else { LOOPBACK6 };
            address::write(words, proxy);
            (*addr).user_port = u32::from(to.to_be());
        }
    }
}

/// The proxy's port that the connection or query is to go to, none if it is left alone. Its destination is remembered on the socket
/// if it goes to the proxy.
///
/// # Safety
/// `addr` is the context of a program that may change the destination.
#[inline(always)]
unsafe fn captured(addr: *mut bpf_sock_addr, meant: &Destination) -> Option<u16> {
    unsafe {
        let sk = (*addr).__bindgen_anon_1.sk;
        let query = (*addr).type_ == SOCK_DGRAM
            && (*addr).protocol == IPPROTO_UDP
            && meant.port == NAME_SERVER_PORT.to_be();
        let connection = (*addr).type_ == SOCK_STREAM && (*addr).protocol == IPPROTO_TCP;
        if sk.is_null() || !(query || connection) {
            return None;
        }
        let netns = bpf_get_netns_cookie(addr.cast());
        let pod = pod(netns)?;
        if query && pod.flags & CAPTURE_DNS == 0 {
            return None;
        }
        let way = way(netns, &pod, meant);
        if connection {
            way.count(netns);
        }
        let to = if query { DNS_PORT } else { OUTBOUND_PORT };
        if matches!(way, Way::Proxy) {
            // Without memory to remember it the proxy learns no destination, and closes the connection.
            return (storage::put(&MEANT, sk, meant) || pod.flags & FAIL_CLOSED != 0).then_some(to);
        }
        // The socket may carry the destination of an earlier attempt that failed.
        storage::forget(&MEANT, sk);
        // To the proxy's port while nobody listens there, so that the kernel refuses it.
        (matches!(way, Way::WithoutProxy) && pod.flags & FAIL_CLOSED != 0).then_some(to)
    }
}

/// Where a connection goes.
enum Way {
    /// It does not leave the pod.
    Local,
    /// It is the proxy's own.
    Exempt,
    Excluded,
    Proxy,
    WithoutProxy,
}

impl Way {
    #[inline(always)]
    fn count(&self, netns: u64) {
        let counter = match self {
            Self::Local => return,
            Self::Exempt => Counter::OutboundExempt,
            Self::Excluded => Counter::OutboundExcluded,
            Self::Proxy => Counter::OutboundRedirected,
            Self::WithoutProxy => Counter::OutboundWithoutProxy,
        };
        count(netns, counter);
    }
}

#[inline(always)]
fn way(netns: u64, pod: &PodEntry, meant: &Destination) -> Way {
    if stays_here(meant) {
        return Way::Local;
    }
    // SAFETY: the helper takes no arguments and always has a current task under `connect(2)` and `sendmsg(2)`.
    if unsafe { bpf_get_current_cgroup_id() } == pod.proxy_cgroup {
        return Way::Exempt;
    }
    if excluded(pod, meant) {
        return Way::Excluded;
    }
    // The proxy's DNS server is there when its other listeners are.
    if proxy_listens(netns, meant.family) { Way::Proxy } else { Way::WithoutProxy }
}

/// Loopback, the unspecified address (which the kernel takes for loopback), and IPv6 link-local addresses, which mean
/// nothing without the scope that the proxy would not have.
#[inline(always)]
fn stays_here(meant: &Destination) -> bool {
    let first = u32::from_be(meant.address[0]);
    if meant.family == AF_INET {
        return first >> 24 == 127 || first == 0;
    }
    first >> 22 == 0xfe80 >> 6
        || ((meant.address[0] | meant.address[1] | meant.address[2]) == 0 && u32::from_be(meant.address[3]) <= 1)
}

#[inline(always)]
fn excluded(pod: &PodEntry, meant: &Destination) -> bool {
    if port_excluded(pod, OUTBOUND, u16::from_be(meant.port)) {
        return true;
    }
    let bits = if meant.family == AF_INET { 32 } else { 128 };
    let range = RangeKey { rules: pod.rules, family: u32::from(meant.family), address: meant.address };
    let key = Key::new(RANGE_KEY_FIXED_BITS + bits, range);
    EXCLUDED_RANGES.get(&key).is_some() || (pod.flags & INCLUDE_ONLY != 0 && INCLUDED_RANGES.get(&key).is_none())
}

#[inline(always)]
fn proxy_listens(netns: u64, family: u16) -> bool {
    let key = ListenerKey { netns, family, port: OUTBOUND_PORT, pad: 0 };
    // SAFETY: the key is of the map's type; the socket is released before anything else happens to it.
    unsafe {
        let sk = bpf_map_lookup_elem(addr_of!(LISTENERS).cast_mut().cast(), addr_of!(key).cast());
        if sk.is_null() {
            return false;
        }
        bpf_sk_release(sk);
    }
    true
}

/// The proxy's address for a destination. For connections one of two million in 127.64.0.0/10, so that those to different
/// destinations do not share one range of ephemeral ports. None of them is a broadcast address.
#[inline(always)]
fn proxy_ip4(to: u16, meant: &Destination) -> u32 {
    if to == DNS_PORT {
        return LOOPBACK4;
    }
    let mixed = (meant.address[0] ^ u32::from(meant.port).rotate_left(11)).wrapping_mul(0x9e37_79b1);
    (0x7f40_0001 | ((mixed >> 10) & 0x003f_fffe)).to_be()
}
