//! EndpointSlices change one endpoint at a time, and name all of them each time: what stands there as before is kept from before.

use std::cmp::Ordering;
use std::sync::{Arc, LazyLock};

use fsm_api::core::{self as k8s, EndpointPort};
use memchr::memmem::Finder;
use smallvec::SmallVec;

use super::{Unusable, is_tcp, read};
use crate::Json;
use crate::catalog::ObjectName;
use crate::json::Skim;

/// What follows the metadata.
static PORTS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("},\"ports\":"));

/// How far ahead among the endpoints before one is looked for: they keep their order.
const AHEAD: usize = 8;

#[derive(Clone, Debug)]
pub struct Slice {
    pub service: ObjectName,
    /// TCP ports that have a number.
    pub ports: Arc<[EndpointPort]>,
    /// Those with an IP address.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// The ports as they stand in the object; none if they were not found there as they stand.
    ports_text: Option<Arc<str>>,
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        (&self.service, &self.ports, &self.endpoints) == (&other.service, &other.ports, &other.endpoints)
    }
}

impl Eq for Slice {}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    pub address: String,
    /// New traffic may go there.
    pub ready: bool,
    /// The pod behind it.
    pub pod: Option<ObjectName>,
    pub zone: String,
    pub hostname: String,
    /// As it stands in the object; none if it was not found there as it stands.
    text: Option<Box<str>>,
}

/// The endpoints that only one of two editions of a slice has.
#[derive(Debug, Default)]
pub struct Exchanged<'a> {
    pub gone: SmallVec<[&'a Endpoint; 4]>,
    pub new: SmallVec<[&'a Endpoint; 4]>,
}

impl Slice {
    /// The pods behind it, with their zones.
    pub fn pods(&self) -> impl Iterator<Item = (&ObjectName, &str)> {
        self.endpoints.iter().filter_map(|endpoint| Some((endpoint.pod.as_ref()?, endpoint.zone.as_str())))
    }

    /// Whether new traffic may go to a pod.
    pub fn is_ready(&self, pod: &ObjectName) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.ready && endpoint.pod.as_ref() == Some(pod))
    }

    /// Whether a pod is behind it.
    pub fn has_pod(&self, pod: &ObjectName) -> bool {
        self.pods().any(|(its, _)| its == pod)
    }
}

impl<'a> Exchanged<'a> {
    /// What makes the difference between two editions. Endpoints that are shared stand in the same order in both.
    pub fn between(before: Option<&'a Slice>, after: Option<&'a Slice>) -> Self {
        let of = |slice: Option<&'a Slice>| slice.map_or(&[][..], |slice| &slice.endpoints);
        let (mut rest, mut exchanged) = (of(before), Self::default());
        for endpoint in of(after) {
            match rest.iter().position(|before| Arc::ptr_eq(before, endpoint)) {
                Some(at) => {
                    exchanged.gone.extend(rest[..at].iter().map(|gone| &**gone));
                    rest = &rest[at + 1..];
                }
                None => exchanged.new.push(endpoint),
            }
        }
        exchanged.gone.extend(rest.iter().map(|gone| &**gone));
        exchanged
    }
}

impl Endpoint {
    /// None without an address. `own` is the namespace of the slice, `text` the endpoint as it stands there.
    fn read_in_passing(text: &str, own: &str) -> Result<Option<Self>, Unusable> {
        match EndpointParts::in_passing(text) {
            Some(seen) => Ok(seen.endpoint(own, text)),
            None => Ok(Self::new(parse(text)?, own, Some(text))),
        }
    }

    /// None without an address. `own` is the namespace of the slice.
    fn new(object: k8s::Endpoint, own: &str, text: Option<&str>) -> Option<Self> {
        let pod = object.target_ref.filter(|target| target.kind == "Pod").map(|target| {
            let namespace = if target.namespace.is_empty() { own.to_owned() } else { target.namespace };
            ObjectName::new(namespace, target.name)
        });
        Some(Self {
            address: object.addresses.into_iter().next()?,
            ready: object.conditions.is_ready(),
            pod,
            zone: object.zone,
            hostname: object.hostname,
            text: text.map(Box::from),
        })
    }

    /// All that is read of it.
    fn read(&self) -> (&str, bool, Option<&ObjectName>, &str, &str) {
        (&self.address, self.ready, self.pod.as_ref(), &self.zone, &self.hostname)
    }

    /// By address and then by the text of the pod's name.
    pub fn in_order(&self, other: &Self) -> Ordering {
        fn pod(endpoint: &Endpoint) -> &str {
            endpoint.pod.as_ref().map(ObjectName::text).unwrap_or_default()
        }
        self.address.cmp(&other.address).then_with(|| pod(self).cmp(pod(other)))
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        let same_text = self.text.is_some() && self.text == other.text;
        same_text || self.read() == other.read()
    }
}

impl Eq for Endpoint {}

/// `Ok(None)`: a slice that belongs to no service, or that has no IP addresses. `own` is its namespace, `before` its edition before.
pub(in crate::catalog) fn slice(json: &Json, own: &str, before: Option<&Slice>) -> Result<Option<Slice>, Unusable> {
    match Seen::in_passing(json.get(), before) {
        Some(seen) => seen.slice(own, before),
        None => whole(json, own),
    }
}

/// What the mesh reads of a slice, as it stands in the text.
#[derive(Default)]
struct Seen<'a> {
    service: Option<&'a str>,
    address_type: Option<&'a str>,
    endpoints: Option<Vec<SeenEndpoint<'a>>>,
    ports: Option<&'a str>,
}

enum SeenEndpoint<'a> {
    Kept(Arc<Endpoint>),
    Other(&'a str),
}

impl<'a> Seen<'a> {
    /// None if it isn't written as API servers write.
    fn in_passing(text: &'a str, before: Option<&Slice>) -> Option<Self> {
        let (mut seen, mut metadata, mut labels) = (Self::default(), None, None);
        let mut known = before.map_or(&[][..], |slice| &slice.endpoints);
        let mut skim = Skim::of(text);
        skim.object(|key, value| match key {
            "addressType" => once(&mut seen.address_type, value.string()?),
            "ports" => once(&mut seen.ports, value.value()?),
            "endpoints" => {
                let mut endpoints = Vec::new();
                if !value.null()? {
                    endpoints.reserve(known.len() + 1);
                    value.array(|endpoint| {
                        for (at, before) in known.iter().take(AHEAD).enumerate() {
                            if let Some(text) = &before.text
                                && endpoint.same(text)?
                            {
                                endpoints.push(SeenEndpoint::Kept(before.clone()));
                                known = &known[at + 1..];
                                return Some(());
                            }
                        }
                        endpoints.push(SeenEndpoint::Other(endpoint.value()?));
                        Some(())
                    })?;
                }
                once(&mut seen.endpoints, endpoints)
            }
            "metadata" => {
                once(&mut metadata, ())?;
                let has_labels = value.until(|key, value| match key {
                    "labels" if !value.null()? => {
                        once(&mut labels, ())?;
                        value.object(|key, value| match key {
                            k8s::EndpointSlice::SERVICE_NAME_LABEL => once(&mut seen.service, value.string()?),
                            _ => value.skip(),
                        })?;
                        Some(true)
                    }
                    "labels" => Some(false),
                    _ => value.skip().map(|()| false),
                })?;
                if has_labels { value.leave_for(&PORTS) } else { Some(()) }
            }
            _ => value.skip(),
        })?;
        skim.end()?;
        Some(seen)
    }

    fn slice(self, own: &str, before: Option<&Slice>) -> Result<Option<Slice>, Unusable> {
        let Some(service) = self.service.filter(|_| self.address_type != Some("FQDN")) else { return Ok(None) };
        let mut endpoints = Vec::new();
        let seen = self.endpoints.unwrap_or_default();
        endpoints.reserve_exact(seen.len());
        for endpoint in seen {
            match endpoint {
                SeenEndpoint::Kept(endpoint) => endpoints.push(endpoint),
                SeenEndpoint::Other(text) => endpoints.extend(Endpoint::read_in_passing(text, own)?.map(Arc::new)),
            }
        }
        let same_ports = |slice: &&Slice| self.ports.is_some() && slice.ports_text.as_deref() == self.ports;
        let (ports, ports_text) = match before.filter(same_ports) {
            Some(before) => (before.ports.clone(), before.ports_text.clone()),
            None => {
                let ports: Option<Vec<EndpointPort>> = self.ports.map(parse).transpose()?.flatten();
                (tcp(ports.unwrap_or_default()), self.ports.map(Arc::from))
            }
        };
        let same_service = |slice: &&Slice| slice.service.name() == service;
        let service = match before.filter(same_service) {
            Some(before) => before.service.clone(),
            None => ObjectName::new(own, service),
        };
        Ok(Some(Slice { service, ports, endpoints, ports_text }))
    }
}

/// What the mesh reads of an endpoint, as it stands in the text.
#[derive(Default)]
struct EndpointParts<'a> {
    address: Option<&'a str>,
    ready: Option<Option<bool>>,
    /// Kind, namespace and name of what is behind it.
    target: [Option<&'a str>; 3],
    zone: Option<&'a str>,
    hostname: Option<&'a str>,
}

impl<'a> EndpointParts<'a> {
    /// None if it isn't written as API servers write.
    fn in_passing(text: &'a str) -> Option<Self> {
        let (mut seen, mut parts) = (Self::default(), [None; 3]);
        let mut skim = Skim::of(text);
        skim.object(|key, value| match key {
            "addresses" => {
                once(&mut parts[0], ())?;
                let first = &mut seen.address;
                value.array(|address| {
                    first.get_or_insert(address.string()?);
                    Some(())
                })
            }
            "conditions" => {
                once(&mut parts[1], ())?;
                value.object(|key, value| match key {
                    "ready" => once(&mut seen.ready, value.bool_or_null()?),
                    "serving" | "terminating" => value.bool_or_null().map(drop),
                    _ => value.skip(),
                })
            }
            "targetRef" => {
                once(&mut parts[2], ())?;
                value.object(|key, value| match key {
                    "kind" => once(&mut seen.target[0], value.string()?),
                    "namespace" => once(&mut seen.target[1], value.string()?),
                    "name" => once(&mut seen.target[2], value.string()?),
                    "uid" => value.string().map(drop),
                    _ => value.skip(),
                })
            }
            "zone" => once(&mut seen.zone, value.string_or_null()?),
            "hostname" => once(&mut seen.hostname, value.string_or_null()?),
            "nodeName" => value.string_or_null().map(drop),
            _ => value.skip(),
        })?;
        skim.end()?;
        Some(seen)
    }

    fn endpoint(self, own: &str, text: &str) -> Option<Endpoint> {
        let [kind, namespace, name] = self.target.map(Option::unwrap_or_default);
        Some(Endpoint {
            address: self.address?.to_owned(),
            ready: self.ready.flatten().unwrap_or(true),
            pod: (kind == "Pod").then(|| ObjectName::new(if namespace.is_empty() { own } else { namespace }, name)),
            zone: self.zone.unwrap_or_default().to_owned(),
            hostname: self.hostname.unwrap_or_default().to_owned(),
            text: Some(text.into()),
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Unusable> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn tcp(ports: Vec<EndpointPort>) -> Arc<[EndpointPort]> {
    ports.into_iter().filter(|port| is_tcp(&port.protocol) && port.port.is_some()).collect()
}

fn whole(json: &Json, own: &str) -> Result<Option<Slice>, Unusable> {
    let object: k8s::EndpointSlice = read(json)?;
    let Some(service) = object.service_name().filter(|_| object.address_type != "FQDN") else { return Ok(None) };
    let service = ObjectName::new(own, service);
    let endpoints = object.endpoints.into_iter().filter_map(|endpoint| Endpoint::new(endpoint, own, None));
    let endpoints = endpoints.map(Arc::new).collect();
    Ok(Some(Slice { service, ports: tcp(object.ports), endpoints, ports_text: None }))
}

#[cfg(test)]
mod tests;
