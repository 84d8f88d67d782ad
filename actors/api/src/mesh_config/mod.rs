//! MeshConfig (config.flomesh.io/v1alpha3): the settings of a whole mesh, all fields of FSM's kind.
//!
//! A field that is absent has the default of FSM's CustomResourceDefinition, or else Go's zero value, which is what
//! [`Default`] gives. What `fsm install` writes is [`MeshConfigSpec::preset`]. Which fields do nothing in this version,
//! and are therefore refused or warned about when set, is in `validate.rs`.

mod certificate;
mod features;
mod ingress;
mod observability;
mod platform;
mod sidecar;
#[cfg(test)]
mod tests;
mod traffic;
mod validate;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use certificate::{CertificateSpec, IngressGatewayCertSpec, SecretReference};
pub use features::{FeatureFlags, PluginChain, PluginChains};
pub use ingress::{IngressHttp, IngressSpec, IngressTls, SslPassthrough};
pub use observability::{AccessLogSpec, ObservabilitySpec, RemoteLoggingSpec, TracingSpec, millionths};
pub use platform::{
    ClusterProperty, ClusterSetSpec, ConnectorLb, ConnectorSpec, ConnectorViaGateway, EgressGatewaySpec, FlbSpec,
    GatewayApiSpec, ImageSpec, MiscSpec, RepoServerSpec, ServiceLbSpec, WarmupSpec,
};
pub use sidecar::{
    DnsDbEntry, DnsIp, DnsUpstream, DnsWildcard, LocalDnsProxy, LocalProxyMode, ResourceRequirements, SidecarSpec,
    XnetDnsProxy,
};
pub use traffic::{CloudAccessNames, ExternalAuthorization, ServiceAccessNames, TrafficSpec};

use crate::meta::ObjectMeta;

/// config.flomesh.io/v1alpha3 MeshConfig.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshConfig {
    pub metadata: ObjectMeta,
    pub spec: MeshConfigSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshConfigSpec {
    pub certificate: CertificateSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_set: Option<ClusterSetSpec>,
    pub connector: ConnectorSpec,
    pub egress_gateway: EgressGatewaySpec,
    pub feature_flags: FeatureFlags,
    pub flb: FlbSpec,
    #[serde(rename = "gatewayAPI")]
    pub gateway_api: GatewayApiSpec,
    pub image: ImageSpec,
    pub ingress: IngressSpec,
    pub misc: MiscSpec,
    pub observability: ObservabilitySpec,
    pub plugin_chains: PluginChains,
    pub repo_server: RepoServerSpec,
    #[serde(rename = "serviceLB")]
    pub service_lb: ServiceLbSpec,
    pub sidecar: SidecarSpec,
    pub traffic: TrafficSpec,
    pub warmup: WarmupSpec,
}

impl MeshConfigSpec {
    /// The settings of a new mesh: permissive, and with traffic to other destinations let through, as FSM's chart has it.
    pub fn preset() -> Self {
        let mut spec = Self::default();
        spec.traffic.enable_permissive_traffic_policy_mode = true;
        spec.traffic.enable_egress = true;
        spec.certificate.service_cert_validity_duration = "24h".to_owned();
        spec.observability.fsm_log_level = "info".to_owned();
        spec.ingress.enabled = false;
        spec.warmup.enable = false;
        spec
    }
}

/// A manifest of the settings in which a new mesh differs from the defaults: what `fsm install` applies when there is
/// no MeshConfig.
pub fn preset_manifest(name: &str, namespace: &str) -> Value {
    let preset = MeshConfigSpec::preset();
    serde_json::json!({
        "apiVersion": "config.flomesh.io/v1alpha3",
        "kind": "MeshConfig",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "certificate": {"serviceCertValidityDuration": preset.certificate.service_cert_validity_duration},
            "ingress": {"enabled": preset.ingress.enabled},
            "observability": {"fsmLogLevel": preset.observability.fsm_log_level},
            "sidecar": {"logLevel": preset.sidecar.log_level, "sidecarTimeout": preset.sidecar.sidecar_timeout},
            "traffic": {
                "enableEgress": preset.traffic.enable_egress,
                "enablePermissiveTrafficPolicyMode": preset.traffic.enable_permissive_traffic_policy_mode,
            },
            "warmup": {"enable": preset.warmup.enable},
        },
    })
}
