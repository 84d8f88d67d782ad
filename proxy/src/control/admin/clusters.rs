//! `/clusters`: every service port with its endpoints.

use fsm_proxy_config::Snapshot;
use serde_json::{Value, json};

use super::DataPath;

pub(super) fn json(snapshot: &Snapshot, data_path: &dyn DataPath) -> Value {
    let pools = snapshot.pools().map(|(service, port, endpoints)| {
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|endpoint| {
                let state = data_path.endpoint(&service.name, port.number, endpoint.address);
                json!({
                    "address": endpoint.address,
                    "identity": endpoint.identity,
                    "pod": endpoint.pod,
                    "zone": endpoint.zone,
                    "weight": endpoint.weight,
                    "under_way": state.as_ref().map_or(0, |state| state.in_flight),
                    "balancing": state,
                })
            })
            .collect();
        json!({
            "service": service.name,
            "port": port.number,
            "protocol": port.protocol,
            "addresses": service.vips,
            "endpoints": endpoints,
            "circuit": data_path.circuit(&service.name, port.number),
        })
    });
    Value::Array(pools.collect())
}
