//! `/clusters`: every service port with its endpoints.

use fsm_proxy_config::Snapshot;
use serde_json::{Value, json};

use super::DataPath;

pub(super) fn json(snapshot: &Snapshot, data_path: &dyn DataPath) -> Value {
    let pools = snapshot.pools().map(|(service, port, endpoints)| {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|endpoint| {
                json!({
                    "address": endpoint.address,
                    "identity": endpoint.identity,
                    "pod": endpoint.pod,
                    "zone": endpoint.zone,
                    "under_way": data_path.load(endpoint.address),
                })
            })
            .collect();
        json!({
            "service": service.name,
            "port": port.number,
            "protocol": port.protocol,
            "addresses": service.vips,
            "endpoints": endpoints,
        })
    });
    Value::Array(pools.collect())
}
