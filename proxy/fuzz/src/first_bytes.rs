//! What a connection's first bytes show: an answer, once given, never changes when more bytes follow.

#![no_main]

use fsm_proxy::accept::classify;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut before = None;
    for length in 0..=bytes.len() {
        let now = classify(&bytes[..length]);
        if before.is_some() {
            assert_eq!(now, before, "with {length} bytes");
        }
        before = now;
    }
});
