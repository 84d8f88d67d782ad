//! Between the stream's messages and [`Update`]s.

use std::collections::BTreeMap;

use crate::discovery::{self, CONFIG_TYPE_URL, DeltaDiscoveryResponse};
use crate::resource::{InvalidResource, ResourceName};
use crate::set::{ConfigSet, Entry, Update};

/// Why a response cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum InvalidResponse {
    #[error("the response is of type \"{0}\", expected {CONFIG_TYPE_URL}")]
    Type(String),
    #[error("\"{0}\" is not a seq")]
    Seq(String),
    #[error("{name}: \"{version}\" is not a version: expected the seq at which the resource last changed")]
    Version { name: ResourceName, version: String },
    #[error("{name} carries a {found}, expected {}", name.kind.type_url())]
    Content { name: ResourceName, found: String },
    #[error(transparent)]
    Resource(#[from] InvalidResource),
}

impl Update {
    /// The response that carries this update; its nonce is the seq.
    pub fn to_response(&self, traceparent: &str) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            system_version_info: self.seq.to_string(),
            resources: self.changed.iter().map(|(name, entry)| resource(name, entry)).collect(),
            type_url: CONFIG_TYPE_URL.to_owned(),
            nonce: self.seq.to_string(),
            removed_resources: self.removed.iter().map(ToString::to_string).collect(),
            traceparent: traceparent.to_owned(),
        }
    }

    /// The update that a response carries.
    pub fn from_response(response: &DeltaDiscoveryResponse) -> Result<Self, InvalidResponse> {
        if response.type_url != CONFIG_TYPE_URL {
            return Err(InvalidResponse::Type(response.type_url.clone()));
        }
        let seq = &response.system_version_info;
        let removed: Result<_, InvalidResource> = response.removed_resources.iter().map(|name| name.parse()).collect();
        Ok(Self {
            seq: seq.parse().map_err(|_| InvalidResponse::Seq(seq.clone()))?,
            changed: response.resources.iter().map(entry).collect::<Result<_, _>>()?,
            removed: removed?,
        })
    }
}

impl ConfigSet {
    /// The update that leads from nothing to this set.
    pub fn as_update(&self) -> Update {
        Update { seq: self.seq, changed: self.resources.clone(), removed: Vec::new() }
    }

    /// The set that an update makes from nothing.
    pub fn from_update(update: Update) -> Self {
        Self { seq: update.seq, resources: update.changed }
    }

    /// `initial_resource_versions` of a request that resumes from this set.
    pub fn versions(&self) -> BTreeMap<String, String> {
        self.resources.iter().map(|(name, entry)| (name.to_string(), entry.version.to_string())).collect()
    }
}

fn resource(name: &ResourceName, entry: &Entry) -> discovery::Resource {
    discovery::Resource {
        version: entry.version.to_string(),
        resource: Some(discovery::Any { type_url: name.kind.type_url(), value: entry.bytes.to_vec() }),
        name: name.to_string(),
    }
}

fn entry(resource: &discovery::Resource) -> Result<(ResourceName, Entry), InvalidResponse> {
    let name: ResourceName = resource.name.parse()?;
    let version = match resource.version.parse() {
        Ok(version) => version,
        Err(_) => return Err(InvalidResponse::Version { name, version: resource.version.clone() }),
    };
    let content = resource.resource.clone().unwrap_or_default();
    if content.type_url != name.kind.type_url() {
        return Err(InvalidResponse::Content { name, found: content.type_url });
    }
    Ok((name, Entry { version, bytes: content.value.into() }))
}
