//! Reading and writing the addresses of program contexts, word by word: the verifier allows only aligned 4-byte
//! accesses there, and the compiler merges neighbouring ones unless they are volatile.

use core::ptr::{read_volatile, write_volatile};

/// The third word of a v4-mapped IPv6 address.
const MAPPED: u32 = 0xffff_u32.to_be();

/// # Safety
/// `words` points to the four words of an IPv6 address in a program's context.
#[inline(always)]
pub unsafe fn read(words: *const [u32; 4]) -> [u32; 4] {
    let word = words.cast::<u32>();
    unsafe { [read_volatile(word), read_volatile(word.add(1)), read_volatile(word.add(2)), read_volatile(word.add(3))] }
}

/// # Safety
/// As for [`read`], and the context allows writing the address.
#[inline(always)]
pub unsafe fn write(words: *mut [u32; 4], value: [u32; 4]) {
    let word = words.cast::<u32>();
    unsafe {
        write_volatile(word, value[0]);
        write_volatile(word.add(1), value[1]);
        write_volatile(word.add(2), value[2]);
        write_volatile(word.add(3), value[3]);
    }
}

#[inline(always)]
pub fn is_mapped(address: &[u32; 4]) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED
}

#[inline(always)]
pub fn mapped(ip4: u32) -> [u32; 4] {
    [0, 0, MAPPED, ip4]
}

/// An IPv4 address as it stands in keys.
#[inline(always)]
pub fn widened(ip4: u32) -> [u32; 4] {
    [ip4, 0, 0, 0]
}
