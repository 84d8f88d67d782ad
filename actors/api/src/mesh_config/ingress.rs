//! `spec.ingress`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressSpec {
    pub enabled: bool,
    pub http: IngressHttp,
    pub log_level: String,
    pub namespaced: bool,
    pub tls: IngressTls,
    /// `LoadBalancer` or `NodePort`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Default for IngressSpec {
    fn default() -> Self {
        Self {
            // FSM's schema says true, but only for an `ingress` that is there without it; without `ingress` it is off.
            enabled: false,
            http: IngressHttp::default(),
            log_level: "info".to_owned(),
            namespaced: false,
            tls: IngressTls::default(),
            kind: "LoadBalancer".to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressHttp {
    pub bind: i64,
    pub enabled: bool,
    pub listen: i64,
    pub node_port: i64,
}

impl Default for IngressHttp {
    fn default() -> Self {
        Self { bind: 80, enabled: true, listen: 8000, node_port: 30508 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressTls {
    pub bind: i64,
    pub enabled: bool,
    pub listen: i64,
    #[serde(rename = "mTLS")]
    pub mtls: bool,
    pub node_port: i64,
    pub ssl_passthrough: SslPassthrough,
}

impl Default for IngressTls {
    fn default() -> Self {
        Self {
            bind: 443,
            enabled: false,
            listen: 8443,
            mtls: false,
            node_port: 30607,
            ssl_passthrough: SslPassthrough::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SslPassthrough {
    pub enabled: bool,
    pub upstream_port: i64,
}

impl Default for SslPassthrough {
    fn default() -> Self {
        Self { enabled: false, upstream_port: 443 }
    }
}
