//! The sections about what surrounds the sidecars: cluster set, connectors, gateways, balancers, images, warm-up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::meta::null_as_default;

/// `spec.clusterSet`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterSetSpec {
    #[serde(rename = "controlPlaneUID")]
    pub control_plane_uid: String,
    pub group: String,
    pub is_managed: bool,
    pub name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub properties: Vec<ClusterProperty>,
    pub region: String,
    pub uid: String,
    pub zone: String,
}

impl Default for ClusterSetSpec {
    fn default() -> Self {
        let default = || "default".to_owned();
        Self {
            control_plane_uid: String::new(),
            group: default(),
            is_managed: false,
            name: String::new(),
            properties: Vec::new(),
            region: default(),
            uid: String::new(),
            zone: default(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClusterProperty {
    pub name: String,
    pub value: String,
}

/// `spec.connector`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConnectorSpec {
    #[serde(rename = "DO_NOT_EDIT_viaGateway")]
    pub do_not_edit_via_gateway: String,
    pub lb: ConnectorLb,
    pub via_gateway: ConnectorViaGateway,
}

impl Default for ConnectorSpec {
    fn default() -> Self {
        Self {
            do_not_edit_via_gateway: "viaGateway Managed by fsm-connector-gateway.".to_owned(),
            lb: ConnectorLb::default(),
            via_gateway: ConnectorViaGateway::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConnectorLb {
    pub master_namespace: String,
    #[serde(deserialize_with = "null_as_default")]
    pub slave_namespaces: Vec<String>,
    /// `ActiveActive` or `FailOver`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Default for ConnectorLb {
    fn default() -> Self {
        Self { master_namespace: String::new(), slave_namespaces: Vec::new(), kind: "ActiveActive".to_owned() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConnectorViaGateway {
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    pub egress_addr: String,
    #[serde(rename = "egressGRPCPort")]
    pub egress_grpc_port: i64,
    #[serde(rename = "egressHTTPPort")]
    pub egress_http_port: i64,
    #[serde(rename = "externalIP")]
    pub external_ip: String,
    pub ingress_addr: String,
    #[serde(rename = "ingressGRPCPort")]
    pub ingress_grpc_port: i64,
    #[serde(rename = "ingressHTTPPort")]
    pub ingress_http_port: i64,
}

/// `spec.egressGateway`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EgressGatewaySpec {
    pub admin_port: i64,
    pub enabled: bool,
    pub log_level: String,
    /// `http2tunnel` or `sock5`.
    pub mode: String,
    pub port: i64,
    pub replicas: i64,
}

impl Default for EgressGatewaySpec {
    fn default() -> Self {
        Self {
            admin_port: 6060,
            enabled: false,
            log_level: "info".to_owned(),
            mode: "http2tunnel".to_owned(),
            port: 1080,
            replicas: 1,
        }
    }
}

/// `spec.flb`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FlbSpec {
    pub enabled: bool,
    pub secret_name: String,
    pub strict_mode: bool,
    /// `NodePort` or `Endpoint`.
    pub upstream_mode: String,
}

impl Default for FlbSpec {
    fn default() -> Self {
        Self {
            enabled: false,
            secret_name: "fsm-flb-secret".to_owned(),
            strict_mode: false,
            upstream_mode: "Endpoint".to_owned(),
        }
    }
}

/// `spec.gatewayAPI`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayApiSpec {
    pub enabled: bool,
    pub log_level: String,
}

impl Default for GatewayApiSpec {
    fn default() -> Self {
        Self { enabled: false, log_level: "info".to_owned() }
    }
}

/// `spec.image`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageSpec {
    #[serde(deserialize_with = "null_as_default")]
    pub digest: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    pub name: BTreeMap<String, String>,
    pub pull_policy: String,
    pub registry: String,
    pub tag: String,
}

impl Default for ImageSpec {
    fn default() -> Self {
        Self {
            digest: BTreeMap::new(),
            name: BTreeMap::new(),
            pull_policy: "IfNotPresent".to_owned(),
            registry: "flomesh".to_owned(),
            tag: "latest".to_owned(),
        }
    }
}

/// `spec.misc`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MiscSpec {
    pub repo_server_image: String,
}

impl Default for MiscSpec {
    fn default() -> Self {
        Self { repo_server_image: "flomesh/pipy-repo:1.5.14".to_owned() }
    }
}

/// `spec.repoServer`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RepoServerSpec {
    pub codebase: String,
    pub ipaddr: String,
    pub port: i64,
}

/// `spec.serviceLB`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceLbSpec {
    pub enabled: bool,
    pub image: String,
}

impl Default for ServiceLbSpec {
    fn default() -> Self {
        Self { enabled: false, image: "flomesh/mirrored-klipper-lb:v0.4.7".to_owned() }
    }
}

/// `spec.warmup`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WarmupSpec {
    pub aggression: f64,
    pub duration: String,
    pub enable: bool,
    pub max_weight: i64,
    pub min_weight: i64,
}

impl Default for WarmupSpec {
    fn default() -> Self {
        // FSM's schema has `enable: true` for a `warmup` that is there without it; without `warmup` it is off.
        Self { aggression: 1.0, duration: "90s".to_owned(), enable: false, max_weight: 100, min_weight: 10 }
    }
}
