//! The messages of EndpointSlices. A slice changes one endpoint at a time: what is encoded of the others is kept.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fsm_proxy_config::proto;
use prost::Message;

use crate::catalog::view::{Endpoint, Service, Slice};
use crate::catalog::{Catalog, ObjectName};
use crate::concern::message;

/// The encoded endpoints of every slice.
#[derive(Clone, Debug, Default)]
pub(super) struct EncodedEndpoints(BTreeMap<ObjectName, Vec<Encoded>>);

#[derive(Clone, Debug)]
struct Encoded {
    endpoint: Arc<Endpoint>,
    /// The beginning of its address, by which most endpoints are told apart.
    address: u128,
    /// A part of the encoded message; empty if nobody is told about it.
    part: Box<[u8]>,
}

impl Encoded {
    fn new(catalog: &Catalog, endpoint: &Arc<Endpoint>) -> Self {
        let part = message::endpoint(catalog, endpoint).map_or_else(Vec::new, |message| {
            proto::Endpoints { endpoints: vec![message], ..proto::Endpoints::default() }.encode_to_vec()
        });
        let mut address = [0; 16];
        address.iter_mut().zip(endpoint.address.bytes()).for_each(|(place, byte)| *place = byte);
        Self { endpoint: endpoint.clone(), address: u128::from_be_bytes(address), part: part.into() }
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
            encoded.retain(|encoded| encoded.endpoint.pod.as_ref() != Some(pod));
        }
    }

    /// The message of a slice of `service`.
    pub fn message(&mut self, catalog: &Catalog, name: &ObjectName, slice: &Slice, service: &Service) -> Bytes {
        let kept = self.0.entry(name.clone()).or_default();
        let mut before = std::mem::take(kept).into_iter();
        kept.reserve(slice.endpoints.len());
        for endpoint in &slice.endpoints {
            // Endpoints that stay keep their order.
            let at = before.as_slice().iter().position(|before| Arc::ptr_eq(&before.endpoint, endpoint));
            kept.push(at.and_then(|at| before.nth(at)).unwrap_or_else(|| Encoded::new(catalog, endpoint)));
        }
        let mut told: Vec<&Encoded> = kept.iter().filter(|encoded| !encoded.part.is_empty()).collect();
        told.sort_by(|one, other| one.in_order(other));
        let rest = proto::Endpoints {
            service: slice.service.text().to_owned(),
            ports: message::endpoint_ports(slice, service),
            endpoints: Vec::new(),
        };
        let parts: usize = told.iter().map(|encoded| encoded.part.len()).sum();
        let mut message = Vec::with_capacity(rest.encoded_len() + parts);
        // Parts of a message one after another are the message; endpoints are its last field.
        message.extend(rest.encode_to_vec());
        told.iter().for_each(|encoded| message.extend_from_slice(&encoded.part));
        message.into()
    }
}
