//! The disk format, and the stream's messages.

use fsm_proxy_config::cache::{DamagedCache, decode, encode};
use fsm_proxy_config::{ConfigSet, InvalidResponse, Kind, Update};

use crate::mesh::{Mesh, name};

#[test]
fn what_was_written_is_read() {
    let set = Mesh::bookstore().set;
    assert_eq!(decode(&encode(&set)).unwrap(), set);
    assert_eq!(decode(&encode(&ConfigSet::default())).unwrap(), ConfigSet::default());
}

#[test]
fn every_cut_and_every_changed_byte_is_noticed() {
    let bytes = encode(&Mesh::new().set);
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    for index in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 1;
        assert!(decode(&changed).is_err(), "byte {index} changed");
    }
}

#[test]
fn foreign_and_newer_files_are_told_apart() {
    assert!(matches!(decode(b"{\"seq\": 1}"), Err(DamagedCache::Foreign)));
    let mut newer = encode(&ConfigSet::default());
    newer[7] = 2;
    assert_eq!(decode(&newer).unwrap_err().to_string(), "written in format 2, this proxy reads format 1");
}

#[test]
fn a_response_carries_an_update() {
    let update = Update { removed: vec![name(Kind::Split, "a/b")], ..Mesh::bookstore().set.as_update() };
    let response = update.to_response("00-trace");
    assert_eq!((response.nonce.clone(), response.traceparent.as_str()), (update.seq.to_string(), "00-trace"));
    assert_eq!(Update::from_response(&response).unwrap(), update);
}

#[test]
fn a_response_with_an_error_names_it() {
    let good = Mesh::new().set.as_update().to_response("");
    let broken = |change: fn(&mut fsm_proxy_config::discovery::DeltaDiscoveryResponse)| {
        let mut response = good.clone();
        change(&mut response);
        Update::from_response(&response).map(drop).unwrap_err()
    };
    assert!(matches!(broken(|response| response.type_url.clear()), InvalidResponse::Type(_)));
    assert!(matches!(broken(|response| response.system_version_info = "x".to_owned()), InvalidResponse::Seq(_)));
    let error = broken(|response| response.resources[0].version.clear()).to_string();
    assert_eq!(error, "Settings/settings: \"\" is not a version: expected the seq at which the resource last changed");
    let error = broken(|response| response.resources[0].resource = None).to_string();
    assert_eq!(error, "Settings/settings carries a , expected type.googleapis.com/fsm.config.v1.Settings");
    let error = broken(|response| response.resources[0].name = "Novelty/x".to_owned()).to_string();
    assert!(error.contains("unknown kind of resource \"Novelty\""), "{error}");
}
