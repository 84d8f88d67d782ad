//! A response of the configuration stream: refused by name, or compiled and decided by, and the same again after encoding.

#![no_main]

use fsm_proxy_config::discovery::DeltaDiscoveryResponse;
use fsm_proxy_config::{ConfigSet, Connection, RequestHead, Snapshot, Update, decide, explain};
use http::Request;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(response) = DeltaDiscoveryResponse::decode(bytes) else { return };
    let Ok(update) = Update::from_response(&response) else { return };
    let again = Update::from_response(&update.to_response(&response.traceparent)).expect("what was written is read");
    assert_eq!(again, update);
    let set = ConfigSet::from_update(update);
    let digest = set.digest();
    let Ok(snapshot) = Snapshot::compile(set) else { return };
    assert_eq!(snapshot.digest(), digest);
    let (parts, ()) = Request::get("/a?b").header("host", "store:80").body(()).expect("a request").into_parts();
    let head = RequestHead::of(&parts);
    let connections = [
        Connection::Outbound { destination: ([10, 96, 0, 1], 80).into() },
        Connection::Inbound { port: 80, peer: snapshot.identity().cloned() },
    ];
    for connection in &connections {
        for head in [None, Some(&head)] {
            let decision = decide(&snapshot, connection, head).to_json();
            assert_eq!(explain(&snapshot, connection, head).0.to_json(), decision);
        }
    }
});
