//! What sidecars tell of single requests.

use fsm_api::mesh_config::{AccessLogSpec, RemoteLoggingSpec, millionths};
use fsm_proxy_config::proto;

use crate::catalog::Mesh;

/// A fraction that is none got in although it is refused at admission: nothing is sampled then, rather than everything.
fn sampled(fraction: &str) -> u32 {
    millionths(fraction).unwrap_or_default()
}

pub fn access_log(spec: &AccessLogSpec) -> Option<proto::AccessLog> {
    let format = if spec.format == "text" { proto::LogFormat::Text } else { proto::LogFormat::Json };
    spec.enable.then(|| proto::AccessLog {
        format: format.into(),
        sampled_per_million: sampled(&spec.sampled_fraction),
        errors_always: spec.always_log_errors,
    })
}

/// What makes no URL got in although it is refused at admission: nothing is sent then.
pub fn remote_log(spec: &RemoteLoggingSpec) -> Option<proto::RemoteLog> {
    let url = spec.url().filter(|_| spec.enable)?;
    Some(proto::RemoteLog { url, sampled_per_million: sampled(&spec.sampled_fraction) })
}

/// With no address in the MeshConfig, the collector that the controller itself was given is in the sidecars' environment too.
pub fn tracing(mesh: &Mesh) -> Option<proto::Tracing> {
    let spec = &mesh.config.observability.tracing;
    let from_environment = spec.address.is_empty() && !mesh.started.otlp_endpoint.is_empty();
    spec.enable.then(|| proto::Tracing {
        endpoint: if from_environment { String::new() } else { spec.collector(&mesh.started.mesh_namespace) },
        sampled_per_million: sampled(&spec.sampled_fraction),
    })
}

#[cfg(test)]
mod tests {
    use fsm_api::mesh_config::MeshConfigSpec;
    use serde_json::json;

    use super::*;
    use crate::fact::ControllerStarted;

    fn mesh(observability: serde_json::Value, otlp_endpoint: &str) -> Mesh {
        let config: MeshConfigSpec = serde_json::from_value(json!({ "observability": observability })).unwrap();
        let started = ControllerStarted {
            mesh_namespace: "fsm-system".into(),
            otlp_endpoint: otlp_endpoint.into(),
            ..ControllerStarted::default()
        };
        Mesh { started, config }
    }

    #[test]
    fn nothing_is_told_unless_it_is_asked_for() {
        let mesh = mesh(json!({}), "http://otel:4317");
        let asked = &mesh.config.observability;
        assert_eq!(
            (access_log(&asked.access_log), remote_log(&asked.remote_logging), tracing(&mesh)),
            (None, None, None)
        );
    }

    #[test]
    fn fractions_become_millionths() {
        let mesh = mesh(json!({"accessLog": {"enable": true, "format": "text", "sampledFraction": "0.015"}}), "");
        let log = access_log(&mesh.config.observability.access_log).unwrap();
        assert_eq!((log.format(), log.sampled_per_million, log.errors_always), (proto::LogFormat::Text, 15_000, true));
    }

    #[test]
    fn entries_go_to_the_server_if_there_is_a_url() {
        for (spec, url) in [
            (json!({"enable": true, "address": "logs"}), Some("http://logs:80/")),
            (
                json!({"enable": true, "address": "logs", "port": 8123, "endpoint": "?query=INSERT%20INTO%20a"}),
                Some("http://logs:8123/?query=INSERT%20INTO%20a"),
            ),
            (json!({"enable": true, "address": "fd00::1", "endpoint": "/in"}), Some("http://[fd00::1]:80/in")),
            (json!({"enable": false, "address": "logs"}), None),
            (json!({"enable": true}), None),
            (json!({"enable": true, "address": "a b"}), None),
            (json!({"enable": true, "address": "a", "port": 65536}), None),
            (json!({"enable": true, "address": "a", "endpoint": "/a b"}), None),
        ] {
            let mesh = mesh(json!({ "remoteLogging": spec }), "");
            let log = remote_log(&mesh.config.observability.remote_logging);
            assert_eq!(log.map(|log| log.url).as_deref(), url);
        }
    }

    #[test]
    fn the_collector_is_the_one_of_the_mesh_config_or_of_the_environment_or_jaeger() {
        for (spec, environment, endpoint) in [
            (json!({"enable": true}), "", "http://jaeger.fsm-system.svc.cluster.local:4317"),
            (json!({"enable": true}), "http://otel:4317", ""),
            (json!({"enable": true, "address": "a.b", "port": 9000}), "http://otel:4317", "http://a.b:9000"),
            (json!({"enable": true, "address": "fd00::1"}), "", "http://[fd00::1]:4317"),
        ] {
            let tracing = tracing(&mesh(json!({ "tracing": spec }), environment)).unwrap();
            assert_eq!((tracing.endpoint.as_str(), tracing.sampled_per_million), (endpoint, 1_000_000));
        }
    }
}
