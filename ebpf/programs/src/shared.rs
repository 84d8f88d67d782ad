//! The tables both objects use. The loader creates them with the first object and hands them to every later one.

use crate::abi::{Counter, Counters, ListenerKey, PodEntry, PortKey};
use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{HashMap, PerCpuHashMap, SockHash},
    macros::btf_map,
};

/// Intercepted pods by netns cookie. What is not in here is not touched.
#[btf_map]
pub static PODS: HashMap<u64, PodEntry, 4096> = HashMap::new();

/// Counters by netns cookie.
#[btf_map]
pub static COUNTERS: PerCpuHashMap<u64, Counters, 4096, { BPF_F_NO_PREALLOC as usize }> = PerCpuHashMap::new();

/// Excluded ports.
#[btf_map]
pub static PORTS: HashMap<PortKey, u8, 262144, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// The proxies' listeners. An entry disappears by itself when its socket closes.
#[btf_map]
pub static LISTENERS: SockHash<ListenerKey, 16384> = SockHash::new();

/// What is known of the pod with this namespace.
#[inline(always)]
pub fn pod(netns: u64) -> Option<PodEntry> {
    // SAFETY: the entry stays readable while this program runs. An update puts a new entry in its place and leaves the
    // old one to be used again some time later; it is copied at once so that nothing is read from it then.
    unsafe { PODS.get(&netns).copied() }
}

#[inline(always)]
pub fn count(netns: u64, counter: Counter) {
    if let Some(counters) = COUNTERS.get_ptr_mut(&netns) {
        // SAFETY: the pointer is to this CPU's copy. A program that interrupts this one between reading and writing the
        // same counter costs a count, no more.
        unsafe { (*counters)[counter as usize] += 1 }
    }
}

#[inline(always)]
pub fn port_excluded(pod: &PodEntry, direction: u16, port: u16) -> bool {
    // SAFETY: only presence is asked for; the value is not read.
    unsafe { PORTS.get(&PortKey { rules: pod.rules, port, direction }).is_some() }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
