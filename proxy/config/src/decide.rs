//! The decision about one connection or request.
//!
//! **Outbound**, the destination is looked up in this order:
//!
//! 1. a cluster address and port of a service: that service, whatever the Host header says;
//! 2. the address and target port of a pod: that very pod (StatefulSets and headless services rely on it), unless the
//!    request's Host names a service that has this pod as endpoint and a TrafficSplit applies to it;
//! 3. for HTTP, the Host header or `:authority`: the service with that name, on the port in it or else on the port
//!    that was dialled;
//! 4. neither: passed through when egress is on, else refused.
//!
//! A service's **TrafficSplits** are looked at in the order of their names, those with route groups first; the first
//! that applies decides. One with route groups applies to requests that match one of them, never to opaque
//! connections; requests that match none go to the service's own endpoints. Splits are not followed recursively: a
//! backend is always the backend service's own endpoints, so the split service may be its own backend. A backend with weight 0
//! gets nothing; one that cannot take traffic (unknown service, no port of that number, no endpoint) is left out,
//! and its share goes to the others in proportion. If nothing is left, the request is refused, and the reason names
//! each backend; so too when all weights are 0.
//!
//! **Inbound**, the caller's identity comes from its verified certificate, never from a header. In permissive mode
//! every identity of the trust domain is allowed. Otherwise one TrafficTarget must name the caller as a source and
//! allow the traffic. TrafficTargets add up; within one, TCP routes and HTTP route groups restrict each other, as
//! SMI's access specification has it:
//!
//! | rules of the TrafficTarget | HTTP request | opaque connection |
//! | --- | --- | --- |
//! | HTTPRouteGroups only | a match of one of them | refused |
//! | TCPRoutes only | the port is in one of them | the port is in one of them |
//! | both | both of these | refused |
//!
//! A rule that names a route that does not exist allows nothing, and still restricts.
//!
//! On either side a request whose head has a [`Flaw`] is refused before anything else is looked at.

mod display;
mod inbound;
mod outbound;
mod refusal;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::flaw::Flaw;
use crate::head;
use crate::identity::SpiffeId;
use crate::model::{Endpoint, Service, ServicePort};
use crate::pool::{Attachment, Pool, WeightedPool};
use crate::snapshot::Snapshot;
use crate::trace::{NoTrace, Steps, Trace};
use crate::traffic::TrafficPolicy;

pub use refusal::{Refusal, RefusalKind};

/// What is known of a connection before any byte is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// From the application, to the address that it dialled.
    Outbound { destination: SocketAddr },
    /// From another workload's proxy, to `port` of the application. `peer` is from the verified certificate.
    Inbound { port: u16, peer: Option<SpiffeId> },
}

/// What is known of a request before its body: HTTP only.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    pub method: &'a str,
    /// The Host header or `:authority`, as sent.
    pub authority: &'a str,
    /// Path and query, as sent.
    pub path: &'a str,
    pub headers: &'a http::HeaderMap,
    /// What makes it unacceptable, whatever the policies say.
    pub flaw: Option<Flaw>,
}

impl<'a> RequestHead<'a> {
    /// The head of a request as it came, or as the application will see it.
    pub fn of(parts: &'a http::request::Parts) -> Self {
        Self {
            method: parts.method.as_str(),
            authority: head::authority_of(parts),
            path: head::path_of(parts),
            headers: &parts.headers,
            flaw: Flaw::of(parts),
        }
    }
}

/// What to do. Borrows from the snapshot only, so it outlives the request's head.
#[derive(Clone, Debug)]
pub enum Decision<'s> {
    /// Outbound: to a service of the mesh.
    Forward(Forward<'s>),
    /// Outbound: to the address that the application dialled, untouched.
    Passthrough(Passthrough<'s>),
    /// Inbound: to the application.
    Allow(Allow<'s>),
    /// Answer HTTP with the status and the reason; reset an opaque connection.
    Refuse(Refusal),
}

/// An outbound request or connection for a service.
#[derive(Clone, Debug)]
pub struct Forward<'s> {
    /// The service that the application addressed.
    pub service: &'s Service,
    /// The port of it; its protocol holds for the backends too.
    pub port: &'s ServicePort,
    /// The TrafficSplit (`ns/name`) that applies, if one does.
    pub split: Option<&'s str>,
    pub(crate) to: To<'s>,
}

/// The candidates of a [`Forward`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'s> {
    /// One of several backends; every one has a weight above 0 and endpoints. Never empty.
    Split(&'s [WeightedPool]),
    /// The service's own endpoints. Never empty.
    Own(&'s Pool),
    /// One endpoint, dialled by its own address.
    Pinned(&'s Pool, usize),
}

/// Where a [`Forward`] goes after the draw: the endpoints of one backend service.
#[derive(Clone, Copy, Debug)]
pub struct Backend<'s> {
    /// `ns/name` of the backend service; equal to the addressed service without a split.
    pub service: &'s str,
    /// The port number of the backend service.
    pub port: u16,
    /// Never empty. Sorted by address, without duplicates.
    pub endpoints: &'s [Endpoint],
    /// All endpoints of the service port, of which `endpoints` are those that may be taken.
    pub siblings: &'s [Endpoint],
    /// Which of the siblings it has to be, when it was dialled by its own address.
    pub pinned: Option<usize>,
    /// How traffic to this port of the service is to be handled; all by default if nobody said.
    pub policy: &'s Arc<TrafficPolicy>,
    /// Shared by all that goes to this port of the service.
    pub attachment: &'s Attachment,
}

impl<'s> Forward<'s> {
    /// The backend for this request: `draw` is uniform over all of `u32` and comes from outside.
    pub fn pick_backend(&self, draw: u32) -> Backend<'s> {
        match self.to {
            To::Own(pool) => pool.backend(),
            To::Pinned(pool, at) => Backend { endpoints: &pool.endpoints[at..=at], pinned: Some(at), ..pool.backend() },
            To::Split(pools) => crate::pool::pick(pools, draw).backend(),
        }
    }

    /// All backends with their weights, in the order of their names; one with weight 1 if no split applies.
    pub fn backends(&self) -> impl Iterator<Item = (Backend<'s>, u32)> + use<'s> {
        let (single, split): (Option<Backend<'s>>, &'s [WeightedPool]) = match self.to {
            To::Split(pools) => (None, pools),
            To::Own(_) | To::Pinned(..) => (Some(self.pick_backend(0)), &[]),
        };
        single.map(|backend| (backend, 1)).into_iter().chain(split.iter().map(|one| (one.backend(), one.weight)))
    }
}

/// Why traffic leaves untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passthrough<'s> {
    /// The destination is not in the mesh, and egress is on.
    Egress,
    /// The destination is a pod without a proxy, dialled by its own address.
    Unmeshed(&'s Endpoint),
}

/// What allowed an inbound request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allow<'s> {
    /// The TrafficTarget (`ns/name`); none in permissive mode.
    pub policy: Option<&'s str>,
    /// The route group (`ns/name`) and the name of its match, or the TCP route and "".
    pub rule: Option<(&'s str, &'s str)>,
}

/// The decision for a connection (`head` is none: opaque TCP) or for a request on it.
pub fn decide<'s>(snapshot: &'s Snapshot, connection: &Connection, head: Option<&RequestHead<'_>>) -> Decision<'s> {
    decide_traced(snapshot, connection, head, &mut NoTrace)
}

/// The same decision, with the steps that led to it as sentences, in order.
pub fn explain<'s>(
    snapshot: &'s Snapshot,
    connection: &Connection,
    head: Option<&RequestHead<'_>>,
) -> (Decision<'s>, Vec<String>) {
    let mut steps = Steps::default();
    let decision = decide_traced(snapshot, connection, head, &mut steps);
    (decision, steps.0)
}

fn decide_traced<'s>(
    snapshot: &'s Snapshot,
    connection: &Connection,
    head: Option<&RequestHead<'_>>,
    trace: &mut impl Trace,
) -> Decision<'s> {
    let decision = match (head.and_then(|head| head.flaw), connection) {
        (Some(flaw), _) => Err(Refusal::new(RefusalKind::BadRequest(flaw), flaw.to_string())),
        (None, Connection::Outbound { destination }) => outbound::decide(snapshot, *destination, head, trace),
        (None, Connection::Inbound { port, peer }) => inbound::decide(snapshot, *port, peer.as_ref(), head, trace),
    };
    let decision = decision.unwrap_or_else(Decision::Refuse);
    trace.step(|| decision.to_string());
    decision
}
