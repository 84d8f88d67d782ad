//! A snapshot: the facts that still count, from which all state machines come to the same state as from the whole history.
//!
//! It holds no state machine's own data but what cannot be computed again: which record last changed a resource, and
//! the certificates in use. So a controller of another version can use it too. What it leads to is compared with the
//! digests it carries.
//!
//! Lines of JSON: a [`Header`], then [`Line`]s.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fsm_api::MeshConfig;
use fsm_proxy_config::{ResourceName, SpiffeId};
use fsm_store::Seq;
use serde::{Deserialize, Serialize};

use super::{CATALOG, CONCERNS, Core, PUBLISHER, Skips};
use crate::Json;
use crate::catalog::{Catalog, Gvk, ObjectName, ProxyStatus, Remains, canonical};
use crate::concern::certs::{Certificate, Certs};
use crate::concern::injection::Injection;
use crate::concern::routes::Routes;
use crate::concern::splits::Splits;
use crate::concern::{Concern, ResourceKey, Step};
use crate::fact::{ControllerStarted, Fact, hex_digest};
use crate::publish::Publisher;
use crate::shell::panic_text;

/// The form of snapshots that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// A core from a snapshot.
#[derive(Clone, Debug)]
pub struct Restored {
    pub core: Core,
    /// State machines that came to another state than the one that the snapshot was taken of: with other code, or because a
    /// record was left out for them.
    pub differing: Vec<String>,
}

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("it has format {found}, and this version knows formats up to {FORMAT}: use a newer fsm-controller")]
    Newer { found: u32 },
    #[error("line {line} can't be read: {reason}")]
    Line { line: usize, reason: String },
    #[error("what it holds makes a state machine panic: {0}")]
    Panicked(String),
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Version of the controller that took it.
    software: String,
    seq: Seq,
    /// Records that state machines left out.
    #[serde(default)]
    skips: Vec<(String, Seq)>,
    digests: BTreeMap<String, String>,
    controller: ControllerStarted,
    certificates_issued: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line<'a> {
    /// An object, and the record that it was last seen in.
    Object {
        seq: Seq,
        #[serde(borrow)]
        gvk: Cow<'a, str>,
        name: ObjectName,
        object: Json,
    },
    /// A list under way.
    Relist {
        gvk: Gvk,
        unnamed: Vec<ObjectName>,
    },
    /// A MeshConfig that is in force, although a newer one under its name is unusable.
    KeptConfig {
        name: ObjectName,
        config: Box<MeshConfig>,
    },
    Proxy {
        name: ObjectName,
        status: Box<KeptStatus>,
    },
    Certificate {
        identity: SpiffeId,
        pod: Option<ObjectName>,
        certificate: Certificate,
    },
    /// The record that last changed a resource.
    Version {
        resource: String,
        proxy: Option<ObjectName>,
        seq: Seq,
    },
}

#[derive(Serialize, Deserialize)]
struct KeptStatus {
    identity: Option<SpiffeId>,
    instance: Option<String>,
    version: String,
    acked: Option<(Seq, String)>,
    refused: Option<(Seq, String)>,
}

/// The snapshot of a core.
pub fn write(core: &Core) -> Vec<u8> {
    let remains = core.catalog.remains();
    let header = Header {
        format: FORMAT,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        seq: core.seq(),
        skips: core.skips.iter().map(|(machine, seq)| ((*machine).to_owned(), *seq)).collect(),
        digests: core.digests().into_iter().map(|(machine, digest)| (machine, digest.to_string())).collect(),
        controller: remains.started,
        certificates_issued: core.certs.issued_total(),
    };
    let mut out = Out::default();
    out.line(&header);
    for (seq, (gvk, name), object) in &remains.objects {
        out.line(&Line::Object { seq: *seq, gvk: Cow::Borrowed(gvk), name: name.clone(), object: object.clone() });
    }
    for (gvk, unnamed) in remains.relists {
        out.line(&Line::Relist { gvk, unnamed });
    }
    for (name, config) in remains.kept_configs {
        out.line(&Line::KeptConfig { name, config: Box::new(config) });
    }
    for (name, status) in remains.proxies {
        out.line(&Line::Proxy { name, status: Box::new(status.into()) });
    }
    for (identity, pod, certificate) in core.certs.in_use() {
        let (identity, pod) = (identity.clone(), pod.cloned());
        out.line(&Line::Certificate { identity, pod, certificate: certificate.clone() });
    }
    for (key, seq) in core.publisher.versions() {
        out.line(&Line::Version { resource: key.name.to_string(), proxy: key.proxy.clone(), seq });
    }
    out.0
}

/// The core that a snapshot was taken of.
pub fn restore(bytes: &[u8]) -> Result<Restored, SnapshotError> {
    catch_unwind(AssertUnwindSafe(|| read(bytes)))
        .unwrap_or_else(|panic| Err(SnapshotError::Panicked(panic_text(&*panic).to_owned())))
}

/// A snapshot of the same state but for its objects, each of which `change` gives another form.
pub fn with_objects(bytes: &[u8], change: impl Fn(&Json) -> Json) -> Result<Vec<u8>, SnapshotError> {
    let mut content = Content::read(bytes)?;
    for (_, _, object) in &mut content.remains.objects {
        *object = change(object);
    }
    Ok(write(&content.build()))
}

/// What the lines of a snapshot say.
struct Content {
    seq: Seq,
    skips: Skips,
    digests: BTreeMap<String, String>,
    remains: Remains,
    certs: Certs,
    versions: BTreeMap<ResourceKey, Seq>,
}

fn read(bytes: &[u8]) -> Result<Restored, SnapshotError> {
    let mut content = Content::read(bytes)?;
    let recorded = std::mem::take(&mut content.digests);
    let mut core = content.build();
    core.settle_digests();
    let digests = core.digests();
    let differs = |(machine, recorded): &(&String, &String)| {
        digests.get(*machine).map(ToString::to_string).as_ref() != Some(*recorded)
    };
    let differing = recorded.iter().filter(differs).map(|(machine, _)| machine.clone()).collect();
    Ok(Restored { core, differing })
}

impl Content {
    fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
        let (_, first) = lines.next().ok_or_else(|| invalid(0, "it is empty"))?;
        let Format { format } = serde_json::from_slice(first).map_err(|error| invalid(0, error))?;
        if format > FORMAT {
            return Err(SnapshotError::Newer { found: format });
        }
        let header: Header = serde_json::from_slice(first).map_err(|error| invalid(0, error))?;

        let mut remains = Remains { started: header.controller, ..Remains::default() };
        let mut issued = Vec::new();
        let mut versions = BTreeMap::new();
        for (number, line) in lines {
            match serde_json::from_slice(line).map_err(|error| invalid(number, error))? {
                Line::Object { seq, gvk, name, object } => {
                    remains.objects.push((seq, (canonical(&gvk), name), object));
                }
                Line::Relist { gvk, unnamed } => remains.relists.push((canonical(&gvk), unnamed)),
                Line::KeptConfig { name, config } => remains.kept_configs.push((name, *config)),
                Line::Proxy { name, status } => {
                    let status = ProxyStatus::try_from(*status).map_err(|reason| invalid(number, reason))?;
                    remains.proxies.push((name, status));
                }
                Line::Certificate { identity, pod, certificate } => issued.push(((identity, pod), certificate)),
                Line::Version { resource, proxy, seq } => {
                    let name: ResourceName = resource.parse().map_err(|error| invalid(number, error))?;
                    versions.insert(ResourceKey { name, proxy }, seq);
                }
            }
        }
        let certs = Certs::restore(issued, header.certificates_issued);
        let skips = skips(&header.skips);
        Ok(Self { seq: header.seq, skips, digests: header.digests, remains, certs, versions })
    }

    /// All state machines take everything in as if it had come with one record.
    fn build(self) -> Core {
        let Self { seq, skips, remains, mut certs, versions, digests: _ } = self;
        let (catalog, delta) = Catalog::restore(seq, remains);
        let fact = Fact::Unknown { topic: String::new() };
        let step = Step { seq, fact: &fact, catalog: &catalog, delta: &delta };
        let (mut routes, mut splits, mut injection) = (Routes::default(), Splits::default(), Injection::default());
        let mut changes = certs.apply(&step);
        changes.extend(routes.apply(&step));
        changes.extend(splits.apply(&step));
        changes.extend(injection.apply(&step));
        let version_of = |key: &ResourceKey| versions.get(key).copied().unwrap_or(seq);
        let publisher = Publisher::restore(&catalog, &delta, &changes, version_of);
        Core { catalog, certs, routes, splits, injection, publisher, skips, ..Core::default() }
    }
}

fn skips(recorded: &[(String, Seq)]) -> Skips {
    let machines = || CONCERNS.into_iter().chain([CATALOG, PUBLISHER]);
    let known = |(machine, seq): &(String, Seq)| Some((machines().find(|name| name == machine)?, *seq));
    recorded.iter().filter_map(known).collect()
}

fn invalid(number: usize, reason: impl ToString) -> SnapshotError {
    SnapshotError::Line { line: number + 1, reason: reason.to_string() }
}

#[derive(Default)]
struct Out(Vec<u8>);

impl Out {
    fn line(&mut self, line: &impl Serialize) {
        serde_json::to_writer(&mut self.0, line).expect("plain data is written to memory");
        self.0.push(b'\n');
    }
}

impl From<ProxyStatus> for KeptStatus {
    fn from(status: ProxyStatus) -> Self {
        let ProxyStatus { identity, instance, version, acked, refused } = status;
        Self { identity, instance, version, acked: acked.map(|(seq, digest)| (seq, digest.to_string())), refused }
    }
}

impl TryFrom<KeptStatus> for ProxyStatus {
    type Error = String;

    fn try_from(kept: KeptStatus) -> Result<Self, Self::Error> {
        let KeptStatus { identity, instance, version, acked, refused } = kept;
        let digest = |(seq, text): (Seq, String)| match hex_digest::parse(&text) {
            Some(digest) => Ok((seq, digest)),
            None => Err(format!("\"{text}\" is no digest")),
        };
        Ok(Self { identity, instance, version, acked: acked.map(digest).transpose()?, refused })
    }
}

#[cfg(test)]
mod tests;
