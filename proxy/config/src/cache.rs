//! A [`ConfigSet`] as a file, for a proxy that starts while no controller is there.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0–7 | `FSMCONF` and the format's version, 1 |
//! | 8–39 | SHA-256 of the rest |
//! | 40– | the set as one `DeltaDiscoveryResponse` (`proto/stream.proto`) |
//!
//! It holds what the stream carries, so no key and no certificate but the public trust bundle.

use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::discovery::DeltaDiscoveryResponse;
use crate::set::{ConfigSet, Update};
use crate::wire::InvalidResponse;

const MAGIC: &[u8; 7] = b"FSMCONF";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 40;

/// Why a file is no configuration. Every case has the same remedy: without the file, the proxy waits for a controller.
#[derive(Debug, thiserror::Error)]
pub enum DamagedCache {
    #[error("not a configuration file of a proxy (it does not begin with FSMCONF)")]
    Foreign,
    #[error("written in format {found}, this proxy reads format {VERSION}")]
    Version { found: u8 },
    #[error("cut off or changed: its checksum does not match")]
    Checksum,
    #[error("not readable although its checksum matches: {0}")]
    Encoding(#[from] prost::DecodeError),
    #[error("not readable although its checksum matches: {0}")]
    Content(#[from] InvalidResponse),
}

/// The file's bytes.
pub fn encode(set: &ConfigSet) -> Vec<u8> {
    let body = set.as_update().to_response("").encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(VERSION);
    bytes.extend_from_slice(&Sha256::digest(&body));
    bytes.extend_from_slice(&body);
    bytes
}

/// The set in a file's bytes.
pub fn decode(bytes: &[u8]) -> Result<ConfigSet, DamagedCache> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(DamagedCache::Foreign)?;
    match rest.first() {
        Some(&VERSION) => {}
        Some(&found) => return Err(DamagedCache::Version { found }),
        None => return Err(DamagedCache::Checksum),
    }
    let (checksum, body) = rest[1..].split_at_checked(32).ok_or(DamagedCache::Checksum)?;
    if Sha256::digest(body).as_slice() != checksum {
        return Err(DamagedCache::Checksum);
    }
    let response = DeltaDiscoveryResponse::decode(body)?;
    Ok(ConfigSet::from_update(Update::from_response(&response)?))
}
