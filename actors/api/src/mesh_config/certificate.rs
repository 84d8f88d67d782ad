//! `spec.certificate`.

use serde::{Deserialize, Serialize};

use crate::meta::null_as_default;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CertificateSpec {
    /// Bits of RSA keys; 0 if not given.
    pub cert_key_bit_size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_gateway: Option<IngressGatewayCertSpec>,
    /// Lifetime of workload certificates; see [`crate::duration`]. Empty means 24h.
    pub service_cert_validity_duration: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IngressGatewayCertSpec {
    pub secret: SecretReference,
    #[serde(deserialize_with = "null_as_default")]
    pub subject_alt_names: Vec<String>,
    pub validity_duration: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretReference {
    pub name: String,
    pub namespace: String,
}
