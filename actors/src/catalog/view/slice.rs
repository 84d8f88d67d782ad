//! EndpointSlices change one endpoint at a time, and name all of them each time: what stands there as before is kept from before.

use std::cmp::Ordering;
use std::sync::Arc;

use fsm_api::core::{self as k8s, EndpointPort};

use super::{Unusable, is_tcp, read};
use crate::Json;
use crate::catalog::ObjectName;
use crate::json::Skim;

/// How far ahead among the endpoints before one is looked for: they keep their order.
const AHEAD: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub service: ObjectName,
    /// TCP ports that have a number.
    pub ports: Vec<EndpointPort>,
    /// Those with an IP address.
    pub endpoints: Vec<Arc<Endpoint>>,
}

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
    pub gone: Vec<&'a Endpoint>,
    pub new: Vec<&'a Endpoint>,
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
        match SeenEndpoint::in_passing(text) {
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

/// `Ok(None)`: a slice that belongs to no service, or that has no IP addresses. `before` is its edition before.
pub(in crate::catalog) fn slice(json: &Json, before: Option<&Slice>) -> Result<Option<Slice>, Unusable> {
    match Seen::in_passing(json.get()) {
        Some(seen) => seen.slice(before),
        None => whole(json),
    }
}

/// What the mesh reads of a slice, as it stands in the text.
#[derive(Default)]
struct Seen<'a> {
    namespace: Option<&'a str>,
    service: Option<&'a str>,
    address_type: Option<&'a str>,
    endpoints: Option<Vec<&'a str>>,
    ports: Option<&'a str>,
}

impl<'a> Seen<'a> {
    /// None if it isn't written as API servers write.
    fn in_passing(text: &'a str) -> Option<Self> {
        let (mut seen, mut metadata, mut labels) = (Self::default(), None, None);
        let mut skim = Skim::of(text);
        skim.object(|key, value| match key {
            "addressType" => once(&mut seen.address_type, value.string()?),
            "ports" => once(&mut seen.ports, value.value()?),
            "endpoints" => {
                let mut endpoints = Vec::new();
                if !value.null()? {
                    value.array(|endpoint| {
                        endpoints.push(endpoint.value()?);
                        Some(())
                    })?;
                }
                once(&mut seen.endpoints, endpoints)
            }
            "metadata" => {
                once(&mut metadata, ())?;
                value.object(|key, value| match key {
                    "namespace" => once(&mut seen.namespace, value.string()?),
                    "labels" if !value.null()? => {
                        once(&mut labels, ())?;
                        value.object(|key, value| match key {
                            k8s::EndpointSlice::SERVICE_NAME_LABEL => once(&mut seen.service, value.string()?),
                            _ => value.skip(),
                        })
                    }
                    "labels" => Some(()),
                    _ => value.skip(),
                })
            }
            _ => value.skip(),
        })?;
        skim.end()?;
        Some(seen)
    }

    fn slice(self, before: Option<&Slice>) -> Result<Option<Slice>, Unusable> {
        let own = self.namespace.unwrap_or_default();
        let Some(service) = self.service.filter(|_| self.address_type != Some("FQDN")) else { return Ok(None) };
        let mut known =
            before.filter(|slice| slice.service.namespace() == own).map_or(&[][..], |slice| &slice.endpoints);
        let mut endpoints = Vec::new();
        for text in self.endpoints.unwrap_or_default() {
            match known.iter().take(AHEAD).position(|endpoint| endpoint.text.as_deref() == Some(text)) {
                Some(at) => {
                    endpoints.push(known[at].clone());
                    known = &known[at + 1..];
                }
                None => endpoints.extend(Endpoint::read_in_passing(text, own)?.map(Arc::new)),
            }
        }
        let ports: Option<Vec<EndpointPort>> = self.ports.map(parse).transpose()?.flatten();
        Ok(Some(Slice { service: ObjectName::new(own, service), ports: tcp(ports.unwrap_or_default()), endpoints }))
    }
}

/// What the mesh reads of an endpoint, as it stands in the text.
#[derive(Default)]
struct SeenEndpoint<'a> {
    address: Option<&'a str>,
    ready: Option<Option<bool>>,
    /// Kind, namespace and name of what is behind it.
    target: [Option<&'a str>; 3],
    zone: Option<&'a str>,
    hostname: Option<&'a str>,
}

impl<'a> SeenEndpoint<'a> {
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

fn tcp(ports: Vec<EndpointPort>) -> Vec<EndpointPort> {
    ports.into_iter().filter(|port| is_tcp(&port.protocol) && port.port.is_some()).collect()
}

fn whole(json: &Json) -> Result<Option<Slice>, Unusable> {
    let object: k8s::EndpointSlice = read(json)?;
    let Some(service) = object.service_name().filter(|_| object.address_type != "FQDN") else { return Ok(None) };
    let own = object.metadata.namespace.as_str();
    let service = ObjectName::new(own, service);
    let endpoints = object.endpoints.into_iter().filter_map(|endpoint| Endpoint::new(endpoint, own, None));
    Ok(Some(Slice { service, ports: tcp(object.ports), endpoints: endpoints.map(Arc::new).collect() }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn endpoint(number: u8, ready: bool) -> Value {
        json!({ "addresses": [format!("10.0.0.{number}")], "conditions": { "ready": ready, "serving": null },
            "targetRef": { "kind": "Pod", "name": format!("p{number}"), "uid": "u}{\"" }, "zone": "z" })
    }

    fn object(endpoints: &[(u8, bool)]) -> Json {
        let endpoints: Vec<Value> = endpoints.iter().map(|(number, ready)| endpoint(*number, *ready)).collect();
        Json::from(&json!({
            "addressType": "IPv4", "endpoints": endpoints,
            "metadata": { "namespace": "n", "name": "s-1", "labels": { "kubernetes.io/service-name": "s" } },
            "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }],
        }))
    }

    proptest! {
        /// From edition to edition, each read with the help of the one before.
        #[test]
        fn a_slice_read_in_passing_is_the_slice_read_as_a_whole(
            editions in prop::collection::vec(prop::collection::vec((0..12_u8, any::<bool>()), 0..14), 1..8),
        ) {
            let mut before: Option<Slice> = None;
            for edition in editions {
                let json = object(&edition);
                let found = slice(&json, before.as_ref()).unwrap();
                prop_assert_eq!(&found, &whole(&json).unwrap());
                let exchanged = Exchanged::between(before.as_ref(), found.as_ref());
                let lines = |slice: Option<&Slice>| slice.map_or(0, |slice| slice.endpoints.len());
                let (gone, new) = (exchanged.gone.len(), exchanged.new.len());
                prop_assert_eq!(lines(before.as_ref()) - gone, lines(found.as_ref()) - new);
                before = found;
            }
        }
    }

    #[test]
    fn an_endpoint_read_in_passing_is_the_endpoint_that_is_parsed() {
        for text in [
            r#"{"addresses":["10.0.0.1","10.0.0.2"],"conditions":{"ready":null,"terminating":true},"hostname":"h","zone":null}"#,
            r#"{"addresses":["fd00::1"],"nodeName":"n","targetRef":{"kind":"Pod","name":"p","namespace":"other","uid":"u"}}"#,
            r#"{"addresses":["10.0.0.1"],"targetRef":{"kind":"Node","name":"p"},"hints":{"forZones":[{"name":"z"}]}}"#,
            r#"{"addresses":[],"conditions":{"ready":false}}"#,
            "{}",
        ] {
            let seen = SeenEndpoint::in_passing(text).expect("this is how API servers write");
            assert_eq!(seen.endpoint("n", text), Endpoint::new(parse(text).unwrap(), "n", None), "{text}");
        }
        for text in [
            r#"{"addresses":[7]}"#,
            r#"{"conditions":{"serving":7}}"#,
            r#"{"targetRef":{"name":null}}"#,
            r#"{"addresses":["a"],"addresses":["b"]}"#,
            r#"{"zone":7}"#,
        ] {
            assert!(Endpoint::read_in_passing(text, "n").is_err(), "{text}");
        }
    }

    #[test]
    fn an_endpoint_that_stays_is_kept() {
        let before = slice(&object(&[(1, true), (2, true), (3, true)]), None).unwrap().unwrap();
        let after = slice(&object(&[(1, true), (2, false), (3, true), (4, true)]), Some(&before)).unwrap().unwrap();
        let exchanged = Exchanged::between(Some(&before), Some(&after));
        let addresses =
            |endpoints: &[&Endpoint]| -> Vec<String> { endpoints.iter().map(|one| one.address.clone()).collect() };
        assert_eq!(addresses(&exchanged.gone), ["10.0.0.2"]);
        assert_eq!(addresses(&exchanged.new), ["10.0.0.2", "10.0.0.4"]);
    }

    #[test]
    fn what_belongs_to_no_service_is_none() {
        for text in ["{}", "{\"metadata\":{\"labels\":null}}", "{\"endpoints\":null,\"ports\":null}"] {
            assert_eq!(slice(&Json::from(text), None), Ok(None), "{text}");
        }
        for text in ["{\"endpoints\":7}", "{\"endpoints\":[],\"endpoints\":[]}", "{\"metadata\":7}"] {
            assert!(slice(&Json::from(text), None).is_err(), "{text}");
        }
    }
}
