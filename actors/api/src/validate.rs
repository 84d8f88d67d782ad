//! Validation of an object of which only the JSON is known.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::report::{Report, Validate};
use crate::unknown::unknown_fields;
use crate::{HttpRouteGroup, MeshConfig, TcpRoute, TrafficSplit, TrafficTarget, kinds};

/// Validates an object of one of FSM's or SMI's kinds: its shape, unknown fields in its `spec`, and its content.
/// Objects of other kinds have an empty report.
pub fn validate_json(object: &Value) -> Report {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    match kinds::KindInfo::find(api_version, kind) {
        Some(&kinds::TRAFFIC_TARGET) => typed::<TrafficTarget>(kind, object),
        Some(&kinds::HTTP_ROUTE_GROUP) => typed::<HttpRouteGroup>(kind, object),
        Some(&kinds::TCP_ROUTE) => typed::<TcpRoute>(kind, object),
        Some(&kinds::TRAFFIC_SPLIT) => typed::<TrafficSplit>(kind, object),
        Some(&kinds::MESH_CONFIG) => typed::<MeshConfig>(kind, object),
        _ => Report::new(kind, text("/metadata/namespace"), text("/metadata/name")),
    }
}

fn typed<T: DeserializeOwned + Serialize + Validate>(kind: &str, object: &Value) -> Report {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let refused = |message: String| {
        let mut report = Report::new(kind, text("/metadata/namespace"), text("/metadata/name"));
        report.error("spec", message);
        report
    };
    let known = match T::deserialize(object) {
        Ok(known) => known,
        Err(error) => return refused(format!("{error}; compare with `kubectl explain {}`", kind.to_lowercase())),
    };
    let mut report = known.validate();
    match serde_json::to_value(&known) {
        Ok(known) => {
            let null = Value::Null;
            let spec = |value: &Value| value.get("spec").cloned().unwrap_or_else(|| null.clone());
            for field in unknown_fields(&spec(object), &spec(&known), "spec") {
                report.error(field, "unknown field: correct its name or remove it");
            }
            report
        }
        Err(error) => refused(error.to_string()),
    }
}
