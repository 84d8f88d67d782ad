//! Destinations kept on sockets: gone with the socket, whatever way it ends.

use crate::abi::Destination;
use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
    macros::btf_map,
};
use core::ptr::{addr_of, null_mut};

/// On an application's socket: where it meant to connect to.
#[btf_map]
pub static MEANT: SkStorage<Destination> = SkStorage::new();

/// On a socket the proxy accepted: where its client meant to connect to.
#[btf_map]
pub static ACCEPTED: SkStorage<Destination> = SkStorage::new();

/// The value on `sk`, or null.
///
/// # Safety
/// `sk` is a socket pointer from a program's context, checked not to be null.
#[inline(always)]
pub unsafe fn get(map: &'static SkStorage<Destination>, sk: *mut bpf_sock) -> *mut Destination {
    unsafe { bpf_sk_storage_get(addr_of!(*map).cast_mut().cast(), sk.cast(), null_mut(), 0).cast() }
}

/// Puts `destination` on `sk` and says whether that worked (it needs memory).
///
/// # Safety
/// As for [`get`].
#[inline(always)]
pub unsafe fn put(map: &'static SkStorage<Destination>, sk: *mut bpf_sock, destination: &Destination) -> bool {
    unsafe {
        let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let slot: *mut Destination =
            bpf_sk_storage_get(addr_of!(*map).cast_mut().cast(), sk.cast(), null_mut(), create).cast();
        if slot.is_null() {
            return false;
        }
        *slot = *destination;
        true
    }
}

/// Removes the value from `sk`, if there is one.
///
/// # Safety
/// As for [`get`].
#[inline(always)]
pub unsafe fn forget(map: &'static SkStorage<Destination>, sk: *mut bpf_sock) {
    unsafe { bpf_sk_storage_delete(addr_of!(*map).cast_mut().cast(), sk.cast()) };
}
