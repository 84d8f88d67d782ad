//! The messages of EndpointSlices. A slice changes one endpoint at a time: what is encoded of the others is kept.

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
    /// None if nobody is told about it.
    bytes: Option<Bytes>,
}

/// [`proto::Endpoints`] on the wire, with endpoints that are encoded already.
#[derive(Clone, PartialEq, Message)]
struct Endpoints {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(message, repeated, tag = "2")]
    ports: Vec<proto::PortMapping>,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    endpoints: Vec<Bytes>,
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
        for endpoint in &slice.endpoints {
            // Endpoints that stay keep their order.
            let at = before.as_slice().iter().position(|before| Arc::ptr_eq(&before.endpoint, endpoint));
            kept.push(match at.and_then(|at| before.nth(at)) {
                Some(encoded) => encoded,
                None => Encoded {
                    endpoint: endpoint.clone(),
                    bytes: message::endpoint(catalog, endpoint).map(|message| message.encode_to_vec().into()),
                },
            });
        }
        let mut told: Vec<&Encoded> = kept.iter().collect();
        told.sort_by(|one, other| one.endpoint.in_order(&other.endpoint));
        let endpoints = told.into_iter().filter_map(|encoded| encoded.bytes.clone()).collect();
        let message = Endpoints {
            service: slice.service.text().to_owned(),
            ports: message::endpoint_ports(slice, service),
            endpoints,
        };
        message.encode_to_vec().into()
    }
}
