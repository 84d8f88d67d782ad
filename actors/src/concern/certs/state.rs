//! Trust: the trust bundle that proxies get, and the certificates that were issued to them.

use std::collections::BTreeMap;

use fsm_proxy_config::resource::Resource;
use fsm_proxy_config::{Digest, Kind, ResourceName, SpiffeId, proto};
use fsm_store::Timestamp;
use serde::{Deserialize, Serialize};

use crate::catalog::{Audience, ObjectName};
use crate::concern::{Change, Concern, ResourceKey, Resources, Step, Told};
use crate::digest::{Member, SetDigest};
use crate::fact::{CertificateIssued, Fact};

/// The state machine.
#[derive(Clone, Debug, Default)]
pub struct Certs {
    resources: Resources,
    /// The newest certificate of each holder.
    issued: BTreeMap<Holder, Certificate>,
    /// Of `issued`.
    issued_digest: SetDigest,
    /// How many certificates were issued in all.
    issued_total: u64,
}

/// An identity, and the pod that uses it if known.
pub type Holder = (SpiffeId, Option<ObjectName>);

/// A certificate in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256, hexadecimal.
    pub fingerprint: String,
    pub not_after: Timestamp,
}

impl Certs {
    /// The newest certificate of every holder, in the order of identities and pods.
    pub fn in_use(&self) -> impl Iterator<Item = (&SpiffeId, Option<&ObjectName>, &Certificate)> {
        self.issued.iter().map(|((identity, pod), certificate)| (identity, pod.as_ref(), certificate))
    }

    /// How many certificates were issued since the log began.
    pub fn issued_total(&self) -> u64 {
        self.issued_total
    }

    /// A state with these certificates in use, that has put nothing out yet.
    pub(crate) fn restore(issued: impl IntoIterator<Item = (Holder, Certificate)>, issued_total: u64) -> Self {
        let mut certs = Self { issued_total, ..Self::default() };
        for (holder, certificate) in issued {
            certs.set(holder, Some(certificate));
        }
        certs
    }

    fn issue(&mut self, fact: &CertificateIssued) {
        self.issued_total += 1;
        let certificate = Certificate {
            serial: fact.serial.clone(),
            fingerprint: fact.fingerprint.clone(),
            not_after: fact.not_after,
        };
        self.set((fact.identity.clone(), fact.pod.clone()), Some(certificate));
    }

    fn set(&mut self, holder: Holder, certificate: Option<Certificate>) {
        let before = match certificate {
            Some(certificate) => {
                self.issued_digest.add(member(&holder, &certificate));
                self.issued.insert(holder.clone(), certificate)
            }
            None => self.issued.remove(&holder),
        };
        if let Some(before) = before {
            self.issued_digest.remove(member(&holder, &before));
        }
    }
}

impl Concern for Certs {
    const NAME: &'static str = "certs";

    fn apply(&mut self, step: &Step<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Fact::CertificateIssued(fact) = step.fact {
            self.issue(fact);
        }
        // The private key of a pod that is gone went with it.
        for (name, changed) in step.delta.pods.iter() {
            if let (Some(before), None) = (&changed.before, &changed.after)
                && let Some(identity) = step.catalog.mesh().identity(&before.account)
            {
                self.set((identity, Some(name.clone())), None);
            }
        }
        if step.delta.mesh.is_some() {
            let pem = step.catalog.mesh().started.trust_bundle_pem.clone();
            let told = (!pem.is_empty()).then(|| Told {
                bytes: Resource::TrustBundle(proto::TrustBundle { pem }).encode().into(),
                audience: Audience::Everyone,
            });
            let key = ResourceKey::shared(ResourceName::new(Kind::TrustBundle, "trust"));
            self.resources.set(key, told, &mut changes);
        }
        changes
    }

    fn settle_digest(&mut self) {
        self.resources.settle_digest();
    }

    fn digest(&self) -> Digest {
        let mut digest = self.issued_digest;
        digest.add(Member::of([&self.resources.digest().0[..], &self.issued_total.to_be_bytes()]));
        digest.digest()
    }
}

fn member((identity, pod): &Holder, certificate: &Certificate) -> Member {
    let pod = pod.as_ref().map(ToString::to_string).unwrap_or_default();
    Member::of([
        identity.to_string().as_bytes(),
        pod.as_bytes(),
        certificate.serial.as_bytes(),
        certificate.fingerprint.as_bytes(),
        &certificate.not_after.0.to_be_bytes(),
    ])
}
