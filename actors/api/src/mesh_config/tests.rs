use serde_json::json;

use super::*;
use crate::report::Validate;
use crate::validate_json;

fn validated(spec: Value) -> crate::Report {
    validate_json(&json!({
        "apiVersion": "config.flomesh.io/v1alpha3", "kind": "MeshConfig",
        "metadata": {"name": "fsm-mesh-config", "namespace": "fsm-system"}, "spec": spec,
    }))
}

#[test]
fn what_install_writes_is_accepted_without_a_word() {
    let report = validate_json(&preset_manifest("fsm-mesh-config", "fsm-system"));
    assert!(report.is_ok() && report.warnings.is_empty(), "{report}");
}

#[test]
fn the_preset_manifest_reads_as_the_preset() {
    let config: MeshConfig = serde_json::from_value(preset_manifest("c", "n")).unwrap();
    assert_eq!(config.spec, MeshConfigSpec::preset());
    assert!(config.validate().is_ok());
}

#[test]
fn settings_that_would_weaken_security_silently_are_refused() {
    for (spec, field) in [
        (json!({"sidecar": {"sidecarDisabledMTLS": true}}), "spec.sidecar.sidecarDisabledMTLS"),
        (
            json!({"traffic": {"inboundExternalAuthorization": {"enable": true}}}),
            "spec.traffic.inboundExternalAuthorization.enable",
        ),
    ] {
        let report = validated(spec);
        assert_eq!(report.errors[0].field, field);
    }
}

#[test]
fn bad_values_are_refused_by_field() {
    for (spec, field) in [
        (
            json!({"traffic": {"outboundIPRangeExclusionList": ["10.0.0.0/8", "10.0.0.0/99"]}}),
            "spec.traffic.outboundIPRangeExclusionList[1]",
        ),
        (json!({"traffic": {"inboundPortExclusionList": [0]}}), "spec.traffic.inboundPortExclusionList[0]"),
        (json!({"traffic": {"interceptionMode": "Kernel"}}), "spec.traffic.interceptionMode"),
        (json!({"sidecar": {"sidecarTimeout": 0}}), "spec.sidecar.sidecarTimeout"),
        (json!({"sidecar": {"logLevel": "loud"}}), "spec.sidecar.logLevel"),
        (json!({"observability": {"accessLog": {"format": "xml"}}}), "spec.observability.accessLog.format"),
        (
            json!({"observability": {"accessLog": {"sampledFraction": "10%"}}}),
            "spec.observability.accessLog.sampledFraction",
        ),
        (
            json!({"observability": {"tracing": {"sampledFraction": "1.5"}}}),
            "spec.observability.tracing.sampledFraction",
        ),
        (json!({"observability": {"tracing": {"port": 70000}}}), "spec.observability.tracing.port"),
        (json!({"observability": {"tracing": {"address": "http://otel"}}}), "spec.observability.tracing.address"),
        (json!({"observability": {"tracing": {"address": "otel:4317"}}}), "spec.observability.tracing.address"),
        (
            json!({"observability": {"remoteLogging": {"sampledFraction": "all"}}}),
            "spec.observability.remoteLogging.sampledFraction",
        ),
        (
            json!({"observability": {"remoteLogging": {"enable": true, "address": "a", "port": -1}}}),
            "spec.observability.remoteLogging.port",
        ),
        (
            json!({"observability": {"remoteLogging": {"enable": true, "address": "http://a"}}}),
            "spec.observability.remoteLogging.address",
        ),
        (json!({"observability": {"remoteLogging": {"enable": true}}}), "spec.observability.remoteLogging.address"),
        (
            json!({"observability": {"remoteLogging": {"enable": true, "address": "a", "endpoint": "/a b"}}}),
            "spec.observability.remoteLogging.endpoint",
        ),
        (
            json!({"certificate": {"serviceCertValidityDuration": "1 day"}}),
            "spec.certificate.serviceCertValidityDuration",
        ),
        (
            json!({"certificate": {"serviceCertValidityDuration": "10s"}}),
            "spec.certificate.serviceCertValidityDuration",
        ),
        (json!({"traffic": {"enableEgres": true}}), "spec.traffic.enableEgres"),
        (
            json!({"sidecar": {"localDNSProxy": {"primaryUpstreamDNSServerIPAddr": "dns"}}}),
            "spec.sidecar.localDNSProxy.primaryUpstreamDNSServerIPAddr",
        ),
        (
            json!({"sidecar": {"localDNSProxy": {"db": [{"dn": "db.test", "ips": [{"ipv4": "fd00::1"}]}]}}}),
            "spec.sidecar.localDNSProxy.db[0].ips[0].ipv4",
        ),
        (json!({"sidecar": {"localDNSProxy": {"db": [{"dn": "db.test"}]}}}), "spec.sidecar.localDNSProxy.db[0]"),
        (
            json!({"sidecar": {"localDNSProxy": {"wildcard": {"enable": true}}}}),
            "spec.sidecar.localDNSProxy.wildcard.ips",
        ),
    ] {
        let report = validated(spec);
        assert_eq!(report.errors.len(), 1, "{report}");
        assert_eq!(report.errors[0].field, field);
        assert!(report.errors[0].to_string().starts_with("MeshConfig fsm-system/fsm-mesh-config: spec."));
    }
}

#[test]
fn what_this_version_does_not_do_is_said() {
    for (spec, field) in [
        (json!({"egressGateway": {"enabled": true}}), "spec.egressGateway.enabled"),
        (json!({"gatewayAPI": {"enabled": true}}), "spec.gatewayAPI.enabled"),
        (json!({"ingress": {"enabled": true}}), "spec.ingress.enabled"),
        (json!({"warmup": {"enable": true}}), "spec.warmup.enable"),
        (json!({"featureFlags": {"enableRetryPolicy": true}}), "spec.featureFlags"),
        (json!({"certificate": {"certKeyBitSize": 4096}}), "spec.certificate.certKeyBitSize"),
        (
            json!({"observability": {"tracing": {"enable": true, "endpoint": "/api/v2/spans"}}}),
            "spec.observability.tracing.endpoint",
        ),
        (json!({"observability": {"tracing": {"enable": true, "port": 9411}}}), "spec.observability.tracing.port"),
        (
            json!({"observability": {"remoteLogging": {"enable": true, "address": "a", "authorization": "Basic eA=="}}}),
            "spec.observability.remoteLogging.authorization",
        ),
        (
            json!({"observability": {"remoteLogging": {"enable": true, "address": "a", "secretName": "b"}}}),
            "spec.observability.remoteLogging.secretName",
        ),
        (
            json!({"observability": {"remoteLogging": {"enable": true, "address": "a", "level": 2}}}),
            "spec.observability.remoteLogging.level",
        ),
        (json!({"pluginChains": {"inbound-http": [{"plugin": "x", "priority": 1}]}}), "spec.pluginChains"),
    ] {
        let report = validated(spec);
        assert!(report.is_ok(), "{report}");
        assert_eq!(report.warnings.iter().map(|w| w.field.as_str()).collect::<Vec<_>>(), [field]);
    }
}

#[test]
fn what_sidecars_tell_of_requests_is_set_without_a_warning() {
    let report = validated(json!({"observability": {
        "accessLog": {"enable": true, "format": "text", "sampledFraction": "0.01", "alwaysLogErrors": true},
        "tracing": {"enable": true, "address": "otel.monitoring", "port": 4317, "sampledFraction": "0.5"},
        "remoteLogging": {"enable": true, "address": "logs.monitoring", "port": 8123, "endpoint": "/?query=INSERT%20INTO%20a",
            "sampledFraction": "0.5"},
    }}));
    assert!(report.is_ok() && report.warnings.is_empty(), "{report}");
}

#[test]
fn lists_may_be_null_as_go_writes_them() {
    let report = validated(json!({"traffic": {"inboundPortExclusionList": null}}));
    assert!(report.is_ok(), "{report}");
}
