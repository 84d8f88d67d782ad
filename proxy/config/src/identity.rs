//! Workload identity: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The identity of a workload (SPIFFE ID, in the path layout that the field's meshes share). A clone shares the text.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the parts begin in it.
    namespace: usize,
    service_account: usize,
}

const SCHEME: &str = "spiffe://";
const NAMESPACE: &str = "/ns/";
const SERVICE_ACCOUNT: &str = "/sa/";

/// Why a text is not a workload's SPIFFE ID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a workload identity: expected spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>")]
pub struct InvalidSpiffeId(String);

impl SpiffeId {
    /// The identity of a service account; the parts must be non-empty and without `/`.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, InvalidSpiffeId> {
        let text = [SCHEME, trust_domain, NAMESPACE, namespace, SERVICE_ACCOUNT, service_account].concat();
        if [trust_domain, namespace, service_account].iter().any(|part| part.is_empty() || part.contains('/')) {
            return Err(InvalidSpiffeId(text));
        }
        let namespace_at = SCHEME.len() + trust_domain.len() + NAMESPACE.len();
        let service_account_at = namespace_at + namespace.len() + SERVICE_ACCOUNT.len();
        Ok(Self { text: text.into(), namespace: namespace_at, service_account: service_account_at })
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The part that all identities of one mesh share.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.namespace - NAMESPACE.len()]
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.text[self.namespace..self.service_account - SERVICE_ACCOUNT.len()]
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.text[self.service_account..]
    }

    fn parts(&self) -> [&str; 3] {
        [self.trust_domain(), self.namespace(), self.service_account()]
    }

    /// FSM's older form of the same identity, carried as a DNS SAN: `<sa>.<ns>.<trust-domain>`.
    pub fn dns_name(&self) -> String {
        format!("{}.{}.{}", self.service_account(), self.namespace(), self.trust_domain())
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.strip_prefix(SCHEME).unwrap_or_default().split('/');
        match std::array::from_fn(|_| parts.next()) {
            [Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(service_account), None] => {
                Self::new(trust_domain, namespace, service_account)
            }
            _ => Err(InvalidSpiffeId(text.to_owned())),
        }
    }
}

/// By trust domain, namespace and service account.
impl Ord for SpiffeId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for SpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({self})")
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_identity_is_its_parts(one in "[a-z.-]{1,6}", other in "[a-z.-]{1,6}", name in "[a-z.-]{1,6}", last in "[a-z]{1,3}") {
            let id = SpiffeId::new(&one, &name, &last).unwrap();
            prop_assert_eq!(id.parts(), [&*one, &*name, &*last]);
            prop_assert_eq!(id.to_string().parse::<SpiffeId>(), Ok(id.clone()));
            let next = SpiffeId::new(&other, &last, &name).unwrap();
            prop_assert_eq!(id.cmp(&next), (&one, &name, &last).cmp(&(&other, &last, &name)));
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "",
            "spiffe://",
            "spiffe://t/ns/n/sa/",
            "spiffe:///ns/n/sa/s",
            "spiffe://t/ns/n/sa/s/x",
            "https://t/ns/n/sa/s",
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(InvalidSpiffeId(text.to_owned())));
        }
    }
}
