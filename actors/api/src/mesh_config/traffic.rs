//! `spec.traffic`.

use serde::{Deserialize, Serialize};

use crate::meta::null_as_default;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TrafficSpec {
    /// Destinations outside the mesh are passed through untouched.
    pub enable_egress: bool,
    /// TrafficTargets are ignored; every identity of the mesh may call every service.
    pub enable_permissive_traffic_policy_mode: bool,
    #[serde(rename = "http1PerRequestLoadBalancing")]
    pub http1_per_request_load_balancing: bool,
    #[serde(rename = "http2PerRequestLoadBalancing")]
    pub http2_per_request_load_balancing: Option<bool>,
    pub inbound_external_authorization: ExternalAuthorization,
    #[serde(deserialize_with = "null_as_default")]
    pub inbound_port_exclusion_list: Vec<i64>,
    /// `PodLevel` or `NodeLevel`; empty means PodLevel.
    pub interception_mode: String,
    #[serde(deserialize_with = "null_as_default")]
    pub network_interface_exclusion_list: Vec<String>,
    /// CIDRs.
    #[serde(rename = "outboundIPRangeExclusionList", deserialize_with = "null_as_default")]
    pub outbound_ip_range_exclusion_list: Vec<String>,
    /// CIDRs.
    #[serde(rename = "outboundIPRangeInclusionList", deserialize_with = "null_as_default")]
    pub outbound_ip_range_inclusion_list: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub outbound_port_exclusion_list: Vec<i64>,
    /// `ip`, `domain` or `mixed`.
    pub service_access_mode: String,
    pub service_access_names: ServiceAccessNames,
}

impl Default for TrafficSpec {
    fn default() -> Self {
        Self {
            enable_egress: false,
            enable_permissive_traffic_policy_mode: false,
            http1_per_request_load_balancing: false,
            http2_per_request_load_balancing: None,
            inbound_external_authorization: ExternalAuthorization::default(),
            inbound_port_exclusion_list: Vec::new(),
            interception_mode: "PodLevel".to_owned(),
            network_interface_exclusion_list: Vec::new(),
            outbound_ip_range_exclusion_list: Vec::new(),
            outbound_ip_range_inclusion_list: Vec::new(),
            outbound_port_exclusion_list: Vec::new(),
            service_access_mode: "mixed".to_owned(),
            service_access_names: ServiceAccessNames::default(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ExternalAuthorization {
    pub address: String,
    pub enable: bool,
    pub failure_mode_allow: bool,
    pub port: i64,
    pub stat_prefix: String,
    pub timeout: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceAccessNames {
    pub cloud: CloudAccessNames,
    pub must_with_namespace: bool,
    pub must_with_service_port: bool,
    pub with_trust_domain: bool,
}

impl Default for ServiceAccessNames {
    fn default() -> Self {
        Self {
            cloud: CloudAccessNames::default(),
            must_with_namespace: true,
            must_with_service_port: false,
            with_trust_domain: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CloudAccessNames {
    pub with_namespace: bool,
}

impl Default for CloudAccessNames {
    fn default() -> Self {
        Self { with_namespace: true }
    }
}
