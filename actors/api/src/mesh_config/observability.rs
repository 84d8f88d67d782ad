//! `spec.observability`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ObservabilitySpec {
    /// `trace`, `debug`, `info`, `warn`, `error`, `fatal`, `panic` or `disabled`; empty means info.
    pub fsm_log_level: String,
    pub remote_logging: RemoteLoggingSpec,
    pub tracing: TracingSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RemoteLoggingSpec {
    pub address: String,
    pub authorization: String,
    pub enable: bool,
    pub endpoint: String,
    pub level: i64,
    pub port: i64,
    /// 0 to 1, as text.
    pub sampled_fraction: String,
    pub secret_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TracingSpec {
    pub address: String,
    pub enable: bool,
    pub endpoint: String,
    pub port: i64,
    /// 0 to 1, as text.
    pub sampled_fraction: String,
}
