//! Identities, as text and in certificates: what is taken is written as it was read.

#![no_main]

use fsm_proxy::tls::peer_identity;
use fsm_proxy_config::SpiffeId;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(identity) = std::str::from_utf8(bytes).unwrap_or_default().parse::<SpiffeId>() {
        assert_eq!(identity.to_string().as_bytes(), bytes);
    }
    if let Ok(identity) = peer_identity(&CertificateDer::from(bytes)) {
        assert_eq!(identity.to_string().parse::<SpiffeId>().as_ref(), Ok(&identity));
    }
});
