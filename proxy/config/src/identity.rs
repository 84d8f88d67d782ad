//! Workload identity: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The identity of a workload (SPIFFE ID, in the path layout that the field's meshes share).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SpiffeId {
    trust_domain: String,
    namespace: String,
    service_account: String,
}

/// Why a text is not a workload's SPIFFE ID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a workload identity: expected spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>")]
pub struct InvalidSpiffeId(String);

impl SpiffeId {
    /// The identity of a service account; the parts must be non-empty and without `/`.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, InvalidSpiffeId> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The part that all identities of one mesh share.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// FSM's older form of the same identity, carried as a DNS SAN: `<sa>.<ns>.<trust-domain>`.
    pub fn dns_name(&self) -> String {
        format!("{}.{}.{}", self.service_account, self.namespace, self.trust_domain)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSpiffeId(text.to_owned());
        let parts: Vec<&str> = text.strip_prefix("spiffe://").ok_or_else(invalid)?.split('/').collect();
        match parts.as_slice() {
            [trust_domain, "ns", namespace, "sa", service_account]
                if [trust_domain, namespace, service_account].iter().all(|part| !part.is_empty()) =>
            {
                Ok(Self {
                    trust_domain: (*trust_domain).to_owned(),
                    namespace: (*namespace).to_owned(),
                    service_account: (*service_account).to_owned(),
                })
            }
            _ => Err(invalid()),
        }
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = InvalidSpiffeId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
