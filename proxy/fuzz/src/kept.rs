//! The configuration on disk: damage is named, and what is read is what was written.

#![no_main]

use fsm_proxy_config::cache;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(set) = cache::decode(bytes) {
        assert_eq!(cache::decode(&cache::encode(&set)).expect("what was written is read"), set);
    }
});
