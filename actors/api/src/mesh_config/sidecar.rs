//! `spec.sidecar`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::meta::null_as_default;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SidecarSpec {
    #[serde(deserialize_with = "null_as_default")]
    pub cipher_suites: Vec<String>,
    pub compress_config: bool,
    /// See [`crate::duration`]; empty means never.
    pub config_resync_interval: String,
    #[serde(deserialize_with = "null_as_default")]
    pub ecdh_curves: Vec<String>,
    pub enable_privileged_init_container: bool,
    pub graceful_exit_until_downstream_ends: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub healthcheck_resources: ResourceRequirements,
    pub hold_application_until_proxy_starts: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub init_resources: ResourceRequirements,
    #[serde(rename = "localDNSProxy")]
    pub local_dns_proxy: LocalDnsProxy,
    pub local_proxy_mode: LocalProxyMode,
    pub log_level: String,
    /// Sidecars beyond this count are rejected; 0 means no limit.
    pub max_data_plane_connections: i64,
    #[serde(deserialize_with = "null_as_default")]
    pub resources: ResourceRequirements,
    #[serde(rename = "sidecarDisabledMTLS")]
    pub sidecar_disabled_mtls: bool,
    /// Empty means the built-in default.
    pub sidecar_image: String,
    /// Connect and idle timeout of the proxy, in seconds.
    pub sidecar_timeout: i64,
    #[serde(rename = "tlsMaxProtocolVersion")]
    pub tls_max_protocol_version: String,
    #[serde(rename = "tlsMinProtocolVersion")]
    pub tls_min_protocol_version: String,
    #[serde(rename = "xnetDNSProxy")]
    pub xnet_dns_proxy: XnetDnsProxy,
}

impl Default for SidecarSpec {
    fn default() -> Self {
        Self {
            cipher_suites: Vec::new(),
            compress_config: true,
            config_resync_interval: String::new(),
            ecdh_curves: Vec::new(),
            enable_privileged_init_container: false,
            graceful_exit_until_downstream_ends: true,
            healthcheck_resources: ResourceRequirements::default(),
            hold_application_until_proxy_starts: true,
            init_resources: ResourceRequirements::default(),
            local_dns_proxy: LocalDnsProxy::default(),
            local_proxy_mode: LocalProxyMode::default(),
            log_level: "error".to_owned(),
            max_data_plane_connections: 0,
            resources: ResourceRequirements::default(),
            sidecar_disabled_mtls: false,
            sidecar_image: String::new(),
            sidecar_timeout: 60,
            tls_max_protocol_version: String::new(),
            tls_min_protocol_version: String::new(),
            xnet_dns_proxy: XnetDnsProxy::default(),
        }
    }
}

/// Where the proxy dials the application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalProxyMode {
    /// 127.0.0.1
    #[default]
    Localhost,
    /// The pod's address.
    PodIP,
}

/// Compute resources of a container; quantities as text or number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceRequirements {
    #[serde(deserialize_with = "null_as_default")]
    pub limits: BTreeMap<String, Value>,
    #[serde(deserialize_with = "null_as_default")]
    pub requests: BTreeMap<String, Value>,
}

impl ResourceRequirements {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.requests.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LocalDnsProxy {
    #[serde(deserialize_with = "null_as_default")]
    pub db: Vec<DnsDbEntry>,
    pub enable: bool,
    #[serde(rename = "generateIPv6BasedOnIPv4")]
    pub generate_ipv6_based_on_ipv4: bool,
    #[serde(rename = "primaryUpstreamDNSServerIPAddr")]
    pub primary_upstream_dns_server_ip_addr: String,
    #[serde(rename = "secondaryUpstreamDNSServerIPAddr")]
    pub secondary_upstream_dns_server_ip_addr: String,
    pub wildcard: DnsWildcard,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsDbEntry {
    pub dn: String,
    #[serde(deserialize_with = "null_as_default")]
    pub ips: Vec<DnsIp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsIp {
    pub ipv4: String,
    pub ipv6: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsWildcard {
    pub enable: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub ips: Vec<DnsIp>,
    #[serde(deserialize_with = "null_as_default")]
    pub los: Vec<DnsIp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct XnetDnsProxy {
    pub enable: bool,
    #[serde(deserialize_with = "null_as_default")]
    pub upstreams: Vec<DnsUpstream>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsUpstream {
    pub ip: String,
    pub name: String,
    pub namespace: String,
    pub port: i64,
}

impl Default for DnsUpstream {
    fn default() -> Self {
        Self { ip: String::new(), name: String::new(), namespace: String::new(), port: 53 }
    }
}
