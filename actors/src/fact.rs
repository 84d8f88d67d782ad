//! Facts: everything that the mesh remembers, and their form in the log.
//!
//! A fact is one [`Entry`]: its topic says which kind of fact it is, its key what it is about, its body is JSON that
//! explains itself. A topic or type that this version doesn't know is [`Fact::Unknown`]: kept in the log, ignored by
//! every state machine, so that an older controller can read a newer one's log.

mod names;

use std::collections::BTreeMap;

use bytes::Bytes;
use bytestring::ByteString;
use fsm_proxy_config::{Digest, SpiffeId};
use fsm_store::{Entry, Seq, Timestamp, TraceContext};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Json;
use crate::catalog::{Gvk, ObjectName};

pub use names::Names;

/// One thing that happened to the mesh.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A Kubernetes object was created or changed, or is gone.
    Object(ObjectFact),
    /// A complete list of one kind begins or ends.
    Relist(Relist),
    /// A proxy's stream began or ended.
    Proxy(ProxyFact),
    /// A proxy runs a version.
    Ack(Ack),
    /// A proxy refused a version, and goes on with what it had.
    Nack(Nack),
    /// A workload certificate was signed.
    CertificateIssued(CertificateIssued),
    /// A pod was seen by the injection webhook.
    PodAdmitted(PodAdmitted),
    /// A controller began to work on this log.
    ControllerStarted(ControllerStarted),
    /// A controller ended in good order. Without this record before the next start it was killed, or crashed.
    ControllerStopped(ControllerStopped),
    /// Digests of the state machines at one seq, so that a replay can prove itself.
    StateDigest(StateDigest),
    /// A fact of a newer version.
    Unknown { topic: String },
}

/// A Kubernetes object as the API server has it.
#[derive(Clone, Debug)]
pub struct ObjectFact {
    /// `<apiVersion>/<Kind>`, e.g. `v1/Pod`, `discovery.k8s.io/v1/EndpointSlice`.
    pub gvk: Gvk,
    pub name: ObjectName,
    pub change: ObjectChange,
    /// The whole object, as last seen.
    pub object: Json,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectChange {
    /// Created, changed, or named in a list.
    Applied,
    Deleted,
}

/// A complete list of one kind: objects of the kind that are not applied between begin and end are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relist {
    /// `<apiVersion>/<Kind>`
    pub gvk: String,
    pub phase: RelistPhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelistPhase {
    Begin,
    End,
}

/// The stream of one proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyFact {
    #[serde(rename = "type")]
    pub phase: ProxyPhase,
    /// `<namespace>/<pod>`
    pub proxy: ObjectName,
    /// From the verified certificate.
    pub identity: SpiffeId,
    /// Which stream: a proxy's new stream may begin before the old one's end is noticed.
    pub instance: String,
    /// The proxy's version, as it says.
    #[serde(default)]
    pub version: String,
    /// The seq that the proxy ran when it connected; 0 if none.
    #[serde(default)]
    pub running_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyPhase {
    Connected,
    Disconnected,
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    pub proxy: ObjectName,
    /// The version that it runs now.
    pub seq: Seq,
    /// Of its whole configuration ([`fsm_proxy_config::ConfigSet::digest`]).
    #[serde(with = "hex_digest")]
    pub digest: Digest,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    pub proxy: ObjectName,
    /// The version that it refused.
    pub seq: Seq,
    pub error: String,
}

/// A signed workload certificate: never the key, which the controller doesn't know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateIssued {
    pub identity: SpiffeId,
    /// `<namespace>/<pod>`, if the token named one.
    pub pod: Option<ObjectName>,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the leaf's DER, hexadecimal.
    pub fingerprint: String,
    pub not_after: Timestamp,
}

/// An answer of the injection webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAdmitted {
    pub namespace: String,
    /// The pod's name, or its `generateName` if it has no name yet.
    pub pod: String,
    pub service_account: String,
    /// `injected`, `skipped` or `refused`.
    pub outcome: String,
    /// The proxy's id, if injected.
    #[serde(default)]
    pub uuid: Option<String>,
    /// Why it was skipped or refused.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What a controller brings along when it starts: all that is not in a Kubernetes object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerStarted {
    /// The controller's version.
    pub version: String,
    pub mesh_name: String,
    /// The namespace of the control plane.
    pub mesh_namespace: String,
    /// The MeshConfig's name, in the mesh namespace.
    pub mesh_config: String,
    pub trust_domain: String,
    /// The certificates that workloads verify each other against, PEM.
    pub trust_bundle_pem: String,
    /// The sidecar's image if neither MeshConfig nor annotations name one; empty means the built-in default.
    #[serde(default)]
    pub sidecar_image: String,
    /// Where proxies send traces (OTLP); empty means nowhere.
    #[serde(default)]
    pub otlp_endpoint: String,
}

/// What a controller leaves behind when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerStopped {
    pub mesh_name: String,
}

/// Digests of the state machines after applying all records up to and including `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDigest {
    pub seq: Seq,
    /// Name of the state machine to hexadecimal SHA-256.
    pub digests: BTreeMap<String, String>,
}

/// Why an entry is not a fact.
#[derive(Debug, thiserror::Error)]
#[error(
    "the body of the \"{topic}\" record about \"{key}\" is damaged ({reason}): check the log with `fsm log verify`"
)]
pub struct InvalidFact {
    pub topic: String,
    pub key: String,
    pub reason: String,
}

/// The body of an object's record: what is around its text.
const APPLIED: (&str, &str) = ("{\"type\":\"applied\",\"object\":", "}");
const DELETED: (&str, &str) = ("{\"type\":\"deleted\",\"object\":", "}");

/// The same, written in another way.
#[derive(Deserialize)]
struct ObjectBody<'a> {
    #[serde(rename = "type")]
    change: ObjectChange,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct RelistBody {
    #[serde(rename = "type")]
    phase: RelistPhase,
}

impl Fact {
    /// The fact as it is appended. `trace` is the change that it belongs to.
    pub fn to_entry(&self, trace: TraceContext) -> Entry {
        let (topic, key, body) = match self {
            Self::Object(fact) => {
                let (before, after) = match fact.change {
                    ObjectChange::Applied => APPLIED,
                    ObjectChange::Deleted => DELETED,
                };
                let body = [before, fact.object.get(), after].concat().into_bytes();
                ("object", format!("{} {}", fact.gvk, fact.name), body)
            }
            Self::Relist(fact) => ("relist", fact.gvk.clone(), json(&RelistBody { phase: fact.phase })),
            Self::Proxy(fact) => ("proxy", fact.proxy.to_string(), json(fact)),
            Self::Ack(fact) => ("ack", fact.proxy.to_string(), json(fact)),
            Self::Nack(fact) => ("nack", fact.proxy.to_string(), json(fact)),
            Self::CertificateIssued(fact) => ("certificate", fact.identity.to_string(), json(fact)),
            Self::PodAdmitted(fact) => ("admission", format!("{}/{}", fact.namespace, fact.pod), json(fact)),
            Self::ControllerStarted(fact) => ("controller", fact.mesh_name.clone(), json(fact)),
            Self::ControllerStopped(fact) => ("controller-end", fact.mesh_name.clone(), json(fact)),
            Self::StateDigest(fact) => ("digest", fact.seq.to_string(), json(fact)),
            Self::Unknown { topic } => (topic.as_str(), String::new(), b"{}".to_vec()),
        };
        Entry { topic: topic.into(), key: key.into(), body: body.into(), trace }
    }

    /// Reads an entry.
    pub fn parse(entry: &Entry) -> Result<Self, InvalidFact> {
        Self::parse_knowing(entry, &mut Names::default())
    }

    /// Reads an entry, with the names that entries before had.
    pub fn parse_knowing(entry: &Entry, names: &mut Names) -> Result<Self, InvalidFact> {
        Ok(match &*entry.topic {
            "object" => {
                let (gvk, name) = names.of_object(&entry.key).map_err(|reason| invalid(entry, reason))?;
                let (change, object) = object_body(&entry.body).map_err(|error| invalid(entry, error))?;
                Self::Object(ObjectFact { gvk, name, change, object })
            }
            "relist" => Self::Relist(Relist { gvk: entry.key.to_string(), phase: read::<RelistBody>(entry)?.phase }),
            "proxy" => Self::Proxy(read(entry)?),
            "ack" => Self::Ack(read(entry)?),
            "nack" => Self::Nack(read(entry)?),
            "certificate" => Self::CertificateIssued(read(entry)?),
            "admission" => Self::PodAdmitted(read(entry)?),
            "controller" => Self::ControllerStarted(read(entry)?),
            "controller-end" => Self::ControllerStopped(read(entry)?),
            "digest" => Self::StateDigest(read(entry)?),
            _ => Self::Unknown { topic: entry.topic.to_string() },
        })
    }

    /// The object of `gvk` is there; `object` is its JSON with `metadata`.
    pub fn applied(gvk: &str, object: &serde_json::Value) -> Self {
        Self::object(gvk, object, ObjectChange::Applied)
    }

    /// The object of `gvk` is gone; `object` is its JSON as last seen.
    pub fn deleted(gvk: &str, object: &serde_json::Value) -> Self {
        Self::object(gvk, object, ObjectChange::Deleted)
    }

    fn object(gvk: &str, object: &serde_json::Value, change: ObjectChange) -> Self {
        let text = |pointer| object.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default();
        let name = ObjectName::new(text("/metadata/namespace"), text("/metadata/name"));
        Self::Object(ObjectFact { gvk: gvk.to_owned().into(), name, change, object: object.into() })
    }
}

/// What changed, and the object's text. The text is taken from its place, not looked through: whoever reads the object finds
/// out whether it is one.
fn object_body(body: &Bytes) -> Result<(ObjectChange, Json), String> {
    let text = ByteString::try_from(body.clone()).map_err(|error| error.to_string())?;
    let within = |(before, after): (&str, &str)| text.strip_prefix(before)?.strip_suffix(after);
    if let Some(object) = within(APPLIED) {
        return Ok((ObjectChange::Applied, Json::part(&text, object)));
    }
    if let Some(object) = within(DELETED) {
        return Ok((ObjectChange::Deleted, Json::part(&text, object)));
    }
    let body: ObjectBody<'_> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Ok((body.change, Json::part(&text, body.object.get())))
}

fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("facts have text keys and no failing parts")
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, InvalidFact> {
    serde_json::from_slice(&entry.body).map_err(|error| invalid(entry, error))
}

fn invalid(entry: &Entry, reason: impl ToString) -> InvalidFact {
    InvalidFact { topic: entry.topic.to_string(), key: entry.key.to_string(), reason: reason.to_string() }
}

/// Digests as hexadecimal text.
pub(crate) mod hex_digest {
    use fsm_proxy_config::Digest;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Digest> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let mut digest = Digest([0; 32]);
        for (index, byte) in digest.0.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(digest)
    }

    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("\"{text}\" is not a SHA-256 digest in hexadecimal")))
    }
}

#[cfg(test)]
mod tests;
