//! Outbound: which service, which split, which endpoints.

use std::net::SocketAddr;

use super::{Decision, Forward, Passthrough, Refusal, RefusalKind, RequestHead, To};
use crate::authority;
use crate::pool::Pool;
use crate::snapshot::{EndpointAt, PortAt, Snapshot, canonical};
use crate::split::Split;
use crate::trace::Trace;

pub(super) fn decide<'s>(
    snapshot: &'s Snapshot,
    destination: SocketAddr,
    head: Option<&RequestHead<'_>>,
    trace: &mut impl Trace,
) -> Result<Decision<'s>, Refusal> {
    let destination = canonical(destination);
    if let Some(service) = snapshot.by_vip.get(&destination.ip()) {
        let at = snapshot.find_port(*service, destination.port());
        return to_vip(snapshot, *service, at, destination, head, trace);
    }
    let named = head.and_then(|head| named_service(snapshot, head.authority, destination.port(), trace));
    if let Some(first) = snapshot.endpoints_at(destination).first() {
        return to_endpoint(snapshot, *first, destination, named, head, trace);
    }
    if let Some(at) = named {
        return forward(snapshot, at, head, trace);
    }
    if snapshot.settings.egress {
        trace.step(|| format!("{destination} is not in the mesh, and egress is on"));
        return Ok(Decision::Passthrough(Passthrough::Egress));
    }
    let host = head.map_or_else(String::new, |head| format!(" (Host {})", head.authority));
    Err(Refusal::new(
        RefusalKind::UnknownDestination,
        format!("{destination}{host} is no service that this workload is told of, and egress is off"),
    ))
}

fn to_vip<'s>(
    snapshot: &'s Snapshot,
    service: usize,
    at: Option<PortAt>,
    destination: SocketAddr,
    head: Option<&RequestHead<'_>>,
    trace: &mut impl Trace,
) -> Result<Decision<'s>, Refusal> {
    let service = &snapshot.services[service].service;
    let Some(at) = at else {
        let ports: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
        return Err(Refusal::new(
            RefusalKind::NoSuchPort,
            format!("service {} has no port {}; its ports: {}", service.name, destination.port(), ports.join(", ")),
        ));
    };
    trace.step(|| format!("{destination} is the cluster address of service {}", service.name));
    forward(snapshot, at, head, trace)
}

/// A pod dialled by its own address.
fn to_endpoint<'s>(
    snapshot: &'s Snapshot,
    first: EndpointAt,
    destination: SocketAddr,
    named: Option<PortAt>,
    head: Option<&RequestHead<'_>>,
    trace: &mut impl Trace,
) -> Result<Decision<'s>, Refusal> {
    let backs = |at: PortAt| snapshot.endpoints_at(destination).iter().any(|one| one.at == at);
    if let Some(at) = named.filter(|at| backs(*at))
        && let Some(split) = applicable(snapshot, at, head, trace)
    {
        return split_forward(snapshot, at, split, trace);
    }
    let (service, port, behind) = snapshot.port_at(first.at);
    let endpoint = &behind.pool.endpoints[first.endpoint];
    trace.step(|| {
        format!("{destination} is the address of pod {}, an endpoint of service {}", endpoint.pod, service.name)
    });
    if endpoint.identity.is_none() {
        trace.step(|| "the pod has no proxy".to_owned());
        return Ok(Decision::Passthrough(Passthrough::Unmeshed(endpoint)));
    }
    Ok(Decision::Forward(Forward { service, port, split: None, to: To::Pinned(&behind.pool, first.endpoint) }))
}

/// The service and port that the Host header names.
fn named_service(snapshot: &Snapshot, text: &str, dialled: u16, trace: &mut impl Trace) -> Option<PortAt> {
    let (host, port) = authority::parse(text)?;
    let service = *snapshot.by_host.get(&*host)?;
    let at = snapshot.find_port(service, port.unwrap_or(dialled));
    trace.step(|| {
        let name = &snapshot.services[service].service.name;
        match at {
            Some(_) => format!("Host {text} names service {name}"),
            None => format!("Host {text} names service {name}, which has no port {}", port.unwrap_or(dialled)),
        }
    });
    at
}

fn forward<'s>(
    snapshot: &'s Snapshot,
    at: PortAt,
    head: Option<&RequestHead<'_>>,
    trace: &mut impl Trace,
) -> Result<Decision<'s>, Refusal> {
    if let Some(split) = applicable(snapshot, at, head, trace) {
        return split_forward(snapshot, at, split, trace);
    }
    let (service, port, behind) = snapshot.port_at(at);
    if behind.pool.endpoints.is_empty() {
        return Err(Refusal::new(
            RefusalKind::NoBackend,
            format!("service {} has no endpoint that is ready on port {}", service.name, port.number),
        ));
    }
    explain_policy(&behind.pool, trace);
    Ok(Decision::Forward(Forward { service, port, split: None, to: To::Own(&behind.pool) }))
}

/// The split that decides about this request, if one does.
fn applicable<'s>(
    snapshot: &'s Snapshot,
    at: PortAt,
    head: Option<&RequestHead<'_>>,
    trace: &mut impl Trace,
) -> Option<&'s Split> {
    snapshot.port_at(at).2.splits.iter().find(|split| split.applies(head, trace))
}

fn split_forward<'s>(
    snapshot: &'s Snapshot,
    at: PortAt,
    split: &'s Split,
    trace: &mut impl Trace,
) -> Result<Decision<'s>, Refusal> {
    let (service, port, _) = snapshot.port_at(at);
    trace.step(|| format!("TrafficSplit {} divides the traffic of service {}", split.name, service.name));
    for sentence in &split.left_out {
        trace.step(|| format!("TrafficSplit {}: {sentence}", split.name));
    }
    if split.pools.is_empty() {
        let why = if split.left_out.is_empty() { "it has no backends".to_owned() } else { split.left_out.join("; ") };
        return Err(Refusal::new(
            split.without_pools,
            format!("no backend of TrafficSplit {} can take traffic: {why}", split.name),
        ));
    }
    for weighted in &split.pools {
        explain_policy(&weighted.pool, trace);
    }
    Ok(Decision::Forward(Forward { service, port, split: Some(&split.name), to: To::Split(&split.pools) }))
}

fn explain_policy(pool: &Pool, trace: &mut impl Trace) {
    if !pool.policy.name.is_empty() {
        trace.step(|| format!("TrafficPolicy {}: {} is {}", pool.policy.name, pool.service, pool.policy));
    }
}
