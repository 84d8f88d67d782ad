//! The messages of EndpointSlices. A slice changes one endpoint at a time: what is encoded of the others is kept.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use bytes::Bytes;
use fsm_api::core::EndpointPort;
use fsm_proxy_config::proto;
use prost::Message;

use crate::catalog::view::{Endpoint, Service, Slice};
use crate::catalog::{Catalog, ObjectName};
use crate::concern::message;
use crate::digest::Quick;

/// The encoded endpoints of every slice. Nobody sees in which order slices lie.
#[derive(Clone, Debug, Default)]
pub(super) struct EncodedEndpoints(HashMap<ObjectName, Encoded, BuildHasherDefault<Quick>>);

/// What is encoded of a slice.
#[derive(Clone, Debug, Default)]
struct Encoded {
    parts: Vec<Part>,
    /// None if it is not that of the parts any more.
    message: Option<Whole>,
}

/// A whole message, with what went into it besides endpoints.
#[derive(Clone, Debug)]
struct Whole {
    service: Arc<Service>,
    service_name: ObjectName,
    ports: Arc<[EndpointPort]>,
    bytes: Bytes,
}

/// What is encoded of an endpoint.
#[derive(Clone, Debug)]
struct Part {
    endpoint: Arc<Endpoint>,
    /// The beginning of its address, by which most endpoints are told apart.
    address: u128,
    /// A part of the encoded message; empty if nobody is told about it.
    bytes: Box<[u8]>,
}

impl Part {
    fn new(catalog: &Catalog, endpoint: &Arc<Endpoint>) -> Self {
        let bytes = message::endpoint(catalog, endpoint).map_or_else(Vec::new, |message| {
            proto::Endpoints { endpoints: vec![message], ..proto::Endpoints::default() }.encode_to_vec()
        });
        let mut address = [0; 16];
        address.iter_mut().zip(endpoint.address.bytes()).for_each(|(place, byte)| *place = byte);
        Self { endpoint: endpoint.clone(), address: u128::from_be_bytes(address), bytes: bytes.into() }
    }

    fn is_told(&self) -> bool {
        !self.bytes.is_empty()
    }

    fn in_order(&self, other: &Self) -> Ordering {
        self.address.cmp(&other.address).then_with(|| self.endpoint.in_order(&other.endpoint))
    }
}

impl EncodedEndpoints {
    /// The slice is gone.
    pub fn forget(&mut self, slice: &ObjectName) {
        self.0.remove(slice);
    }

    /// Something is different about a pod in the slice.
    pub fn forget_pod(&mut self, slice: &ObjectName, pod: &ObjectName) {
        if let Some(encoded) = self.0.get_mut(slice) {
            encoded.parts.retain(|part| part.endpoint.pod.as_ref() != Some(pod));
            encoded.message = None;
        }
    }

    /// The message of a slice of `service`.
    pub fn message(&mut self, catalog: &Catalog, name: &ObjectName, slice: &Slice, service: &Arc<Service>) -> Bytes {
        let encoded = match self.0.get_mut(name) {
            Some(encoded) => encoded,
            None => self.0.entry(name.clone()).or_default(),
        };
        let others_are_told = encoded.follow(catalog, slice);
        if let Some(whole) = &encoded.message
            && !others_are_told
            && Arc::ptr_eq(&whole.service, service)
            && (&whole.service_name, &whole.ports) == (&slice.service, &slice.ports)
        {
            return whole.bytes.clone();
        }
        let bytes = encoded.whole(slice, service);
        encoded.message = Some(Whole {
            service: service.clone(),
            service_name: slice.service.clone(),
            ports: slice.ports.clone(),
            bytes: bytes.clone(),
        });
        bytes
    }
}

impl Encoded {
    /// Goes on to another edition of the slice; gives whether other endpoints are told than before.
    fn follow(&mut self, catalog: &Catalog, slice: &Slice) -> bool {
        let mut before = std::mem::take(&mut self.parts).into_iter();
        let mut others = false;
        self.parts.reserve(slice.endpoints.len());
        for endpoint in &slice.endpoints {
            // Endpoints that stay keep their order.
            match before.as_slice().iter().position(|before| Arc::ptr_eq(&before.endpoint, endpoint)) {
                Some(at) => {
                    before.by_ref().take(at).for_each(|gone| others |= gone.is_told());
                    self.parts.extend(before.next());
                }
                None => {
                    let part = Part::new(catalog, endpoint);
                    others |= part.is_told();
                    self.parts.push(part);
                }
            }
        }
        before.for_each(|gone| others |= gone.is_told());
        others
    }

    fn whole(&self, slice: &Slice, service: &Service) -> Bytes {
        let mut told: Vec<&Part> = self.parts.iter().filter(|part| part.is_told()).collect();
        told.sort_by(|one, other| one.in_order(other));
        let rest = proto::Endpoints {
            service: slice.service.text().to_owned(),
            ports: message::endpoint_ports(slice, service),
            endpoints: Vec::new(),
        };
        let parts: usize = told.iter().map(|part| part.bytes.len()).sum();
        let mut message = Vec::with_capacity(rest.encoded_len() + parts);
        // Parts of a message one after another are the message; endpoints are its last field.
        message.extend(rest.encode_to_vec());
        told.iter().for_each(|part| message.extend_from_slice(&part.bytes));
        message.into()
    }
}
