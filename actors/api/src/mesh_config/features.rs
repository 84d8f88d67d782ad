//! `spec.featureFlags` and `spec.pluginChains`.

use serde::{Deserialize, Serialize};

use crate::meta::null_as_default;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FeatureFlags {
    pub drop_route_rule_if_no_available_backends: bool,
    pub enable_access_cert_policy: bool,
    pub enable_access_control_policy: bool,
    pub enable_async_proxy_service_mapping: bool,
    pub enable_auto_default_route: bool,
    pub enable_egress_policy: bool,
    pub enable_ingress_backend_policy: bool,
    pub enable_plugin_policy: bool,
    pub enable_retry_policy: bool,
    pub enable_sidecar_active_health_checks: bool,
    pub enable_sidecar_pretty_config: bool,
    pub enable_snapshot_cache_mode: bool,
    pub enable_traffic_warmup_policy: bool,
    #[serde(rename = "enableValidateGRPCRouteHostnames")]
    pub enable_validate_grpc_route_hostnames: bool,
    pub enable_validate_gateway_listener_hostname: bool,
    #[serde(rename = "enableValidateHTTPRouteHostnames")]
    pub enable_validate_http_route_hostnames: bool,
    #[serde(rename = "enableValidateTLSRouteHostnames")]
    pub enable_validate_tls_route_hostnames: bool,
    pub use_endpoint_slices_for_gateway: bool,
}

/// Ordered modules of the four chains.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct PluginChains {
    #[serde(deserialize_with = "null_as_default")]
    pub inbound_http: Vec<PluginChain>,
    #[serde(deserialize_with = "null_as_default")]
    pub inbound_tcp: Vec<PluginChain>,
    #[serde(deserialize_with = "null_as_default")]
    pub outbound_http: Vec<PluginChain>,
    #[serde(deserialize_with = "null_as_default")]
    pub outbound_tcp: Vec<PluginChain>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginChain {
    pub disable: bool,
    pub plugin: String,
    pub priority: f64,
}
