//! Which records can concern the answer to a request.
//!
//! Most of what passes in a cluster is about other namespaces, and cannot change what becomes of a request. What can is named by where an
//! answer comes from: the client's namespace, those of the services and pods that the request may go to, and the addresses that were dialled.
//! Objects of other namespaces can only get there by naming one of these, and then their namespace belongs to the reach too.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;

use fsm_actors::Core;
use fsm_api::{KindInfo, kinds};
use fsm_store::Record;
use memchr::memchr;
use memchr::memmem::{self, Finder};

use crate::replay::request::{Answer, Question};

/// Members of objects that name something of another namespace.
static NAMESPACE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"namespace\""));
static SERVICE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"service\""));

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    namespaces: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    /// Who asks, if without a namespace: pods of this name count wherever they are.
    client: Option<String>,
}

/// Whether a record can concern an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concerned<'a> {
    No,
    Yes,
    /// It names something within the reach: from now on its namespace counts.
    Joins(&'a str),
}

impl Reach {
    /// What the words of a request say.
    pub(super) fn of(question: &Question) -> Self {
        let mut reach = Self::default();
        let (namespace, name) =
            question.from.split_once('/').map_or((None, &*question.from), |(of, name)| (Some(of), name));
        reach.namespaces.extend(namespace.map(str::to_owned));
        reach.client = namespace.is_none().then(|| name.to_owned());
        for host in question.hosts() {
            match host.parse() {
                Ok(address) => drop(reach.addresses.insert(address)),
                // Any part of a host may be the namespace.
                Err(_) => reach.namespaces.extend(host.split('.').map(str::to_owned)),
            }
        }
        reach
    }

    /// Takes in where an answer comes from; gives whether something is new. `core` is the state that the answer was given at.
    pub(super) fn take_in(&mut self, core: &Core, answer: Option<&Answer>) -> bool {
        let before = (self.namespaces.len(), self.addresses.len());
        if let Some(answer) = answer {
            self.namespaces.insert(answer.client.namespace().to_owned());
            for (backend, endpoint) in answer.journey.endpoints() {
                self.of_object(&backend.service);
                self.of_object(&endpoint.pod);
            }
            for backend in &answer.journey.backends {
                self.of_object(&backend.service);
            }
            let address = answer.destination.ip();
            if !address.is_unspecified() && self.addresses.insert(address) {
                self.at_address(core, address);
            }
        }
        before != (self.namespaces.len(), self.addresses.len())
    }

    /// The namespaces of everything that is at an address.
    fn at_address(&mut self, core: &Core, address: IpAddr) {
        let text = address.to_string();
        let services = core.catalog().services().iter().filter(|(_, service)| service.vips.contains(&text));
        self.namespaces.extend(services.map(|(name, _)| name.namespace().to_owned()));
        for (name, slice) in core.catalog().slices().iter() {
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.address == text) {
                self.namespaces.insert(name.namespace().to_owned());
                self.namespaces.extend(endpoint.pod.iter().map(|pod| pod.namespace().to_owned()));
            }
        }
    }

    /// `ns/name`
    fn of_object(&mut self, text: &str) {
        self.namespaces.extend(text.split_once('/').map(|(namespace, _)| namespace.to_owned()));
    }

    /// Lets a namespace count.
    pub(super) fn join(&mut self, namespace: &str) {
        self.namespaces.insert(namespace.to_owned());
    }

    /// Whether a record can concern the answer.
    pub(super) fn concerns<'a>(&self, record: &'a Record) -> Concerned<'a> {
        let entry = &record.entry;
        match &*entry.topic {
            "object" => self.concerns_object(&entry.key, &entry.body),
            // What proxies said is shown with an answer.
            "proxy" | "ack" | "nack" => self.within(entry.key.split_once('/').map_or("", |(namespace, _)| namespace)),
            "certificate" | "admission" | "digest" => Concerned::No,
            _ => Concerned::Yes,
        }
    }

    fn concerns_object<'a>(&self, key: &'a str, body: &[u8]) -> Concerned<'a> {
        let Some((gvk, name)) = key.split_once(' ') else { return Concerned::Yes };
        let kind = gvk.rsplit_once('/').and_then(|(version, kind)| KindInfo::find(version, kind));
        let (namespace, name) = name.split_once('/').unwrap_or((name, ""));
        match kind {
            // Settings of the whole mesh.
            Some(&kinds::MESH_CONFIG) => Concerned::Yes,
            _ if self.namespaces.contains(namespace) => Concerned::Yes,
            // Whoever asks may be in any namespace, and any may come to belong to the mesh.
            Some(&kinds::NAMESPACE) if self.client.is_some() => Concerned::Yes,
            Some(&kinds::POD) if self.client.as_ref().is_some_and(|client| name.starts_with(client.as_str())) => {
                Concerned::Yes
            }
            Some(&kinds::SERVICE) => joins(namespace, self.names_address(body)),
            Some(&kinds::ENDPOINT_SLICE) => joins(namespace, self.names_address(body) || self.names_pods(body)),
            Some(&kinds::TRAFFIC_SPLIT) => joins(namespace, self.names_services(body)),
            _ => Concerned::No,
        }
    }

    fn within(&self, namespace: &str) -> Concerned<'static> {
        if self.namespaces.contains(namespace) { Concerned::Yes } else { Concerned::No }
    }

    fn names_address(&self, body: &[u8]) -> bool {
        self.addresses.iter().any(|address| memmem::find(body, format!("\"{address}\"").as_bytes()).is_some())
    }

    /// Whether an EndpointSlice of another namespace has pods of one that counts.
    fn names_pods(&self, body: &[u8]) -> bool {
        texts_of(&NAMESPACE, body).any(|namespace| self.namespaces.contains(namespace))
    }

    /// Whether a TrafficSplit of another namespace has backends in one that counts: it writes them as `namespace/name`.
    fn names_services(&self, body: &[u8]) -> bool {
        texts_of(&SERVICE, body)
            .any(|service| service.split_once('/').is_some_and(|(namespace, _)| self.namespaces.contains(namespace)))
    }
}

/// The texts that a member has, wherever in a JSON text that is.
fn texts_of<'a>(member: &'a Finder<'_>, body: &'a [u8]) -> impl Iterator<Item = &'a str> {
    member.find_iter(body).filter_map(|at| {
        let value = body[at + member.needle().len()..].trim_ascii_start().strip_prefix(b":")?;
        let text = value.trim_ascii_start().strip_prefix(b"\"")?;
        std::str::from_utf8(&text[..memchr(b'"', text)?]).ok()
    })
}

fn joins(namespace: &str, names: bool) -> Concerned<'_> {
    if names { Concerned::Joins(namespace) } else { Concerned::No }
}

#[cfg(test)]
mod tests {
    use fsm_store::{Entry, Seq, Timestamp, TraceContext};

    use super::*;
    use crate::replay::request::RequestFlags;

    fn record(topic: &str, key: &str, body: &str) -> Record {
        let (topic, key, body) = (topic.into(), key.into(), body.to_owned().into());
        Record { seq: Seq(1), time: Timestamp(1), entry: Entry { topic, key, body, trace: TraceContext::default() } }
    }

    #[test]
    fn other_namespaces_are_passed_over_until_they_name_something_within() {
        let flags = RequestFlags::plain("GET", "/", Vec::new());
        let mut reach = Reach::of(&Question::new("shop/web", "cart.orders:80", &flags).unwrap());
        reach.addresses.insert(IpAddr::from([10, 96, 0, 7]));
        let slice = "discovery.k8s.io/v1/EndpointSlice other/cart-1";
        let split = "split.smi-spec.io/v1alpha4/TrafficSplit other/s";
        for (topic, key, body, expected) in [
            ("object", "v1/Pod shop/web-1", "", Concerned::Yes),
            ("object", "v1/Pod orders/cart-1", "", Concerned::Yes),
            ("object", "v1/Pod other/web-1", "", Concerned::No),
            ("object", "v1/Namespace orders", "", Concerned::Yes),
            ("object", "v1/Namespace other", "", Concerned::No),
            ("object", "v1/Service other/x", "\"10.96.0.71\"", Concerned::No),
            ("object", "v1/Service other/x", "\"10.96.0.7\"", Concerned::Joins("other")),
            ("object", slice, "{}", Concerned::No),
            ("object", slice, "{\"namespace\": \"orders\"}", Concerned::Joins("other")),
            ("object", slice, "{\"name\":\"orders\"}", Concerned::No),
            ("object", split, "{\"service\":\"orders/cart\"}", Concerned::Joins("other")),
            ("object", split, "{\"service\":\"orders\"}", Concerned::No),
            ("object", "access.smi-spec.io/v1alpha3/TrafficTarget other/t", "shop", Concerned::No),
            ("object", "config.flomesh.io/v1alpha3/MeshConfig fsm-system/c", "", Concerned::Yes),
            ("relist", "v1/Pod", "", Concerned::Yes),
            ("controller", "fsm", "", Concerned::Yes),
            ("ack", "shop/web-1", "", Concerned::Yes),
            ("ack", "other/web-1", "", Concerned::No),
            ("digest", "256", "", Concerned::No),
        ] {
            assert_eq!(reach.concerns(&record(topic, key, body)), expected, "{topic} {key} {body}");
        }
    }

    #[test]
    fn who_asks_without_a_namespace_may_be_anywhere() {
        let flags = RequestFlags::plain("GET", "/", Vec::new());
        let reach = Reach::of(&Question::new("web", "cart.orders:80", &flags).unwrap());
        for (key, expected) in [
            ("v1/Pod other/web-1", Concerned::Yes),
            ("v1/Pod other/cart-1", Concerned::No),
            ("v1/Namespace other", Concerned::Yes),
        ] {
            assert_eq!(reach.concerns(&record("object", key, "")), expected, "{key}");
        }
    }
}
