//! Service + Pods → EndpointSlices.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::owned::controlled_by;
use super::pods::{is_finished, is_ready};
use super::{Context, ReconcileError};
use crate::service::SERVICE_NAME;

const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io");
/// Marks the slices of services without a ClusterIP.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The most endpoints in one slice.
const SLICE_LIMIT: usize = 100;

/// The ports and endpoints of one slice. A named target port may have different numbers in different pods; each
/// combination of numbers needs a slice of its own.
#[derive(Debug, Clone, PartialEq, Default)]
struct Content {
    family: Family,
    ports: Option<Vec<EndpointPort>>,
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Family {
    #[default]
    IPv4,
    IPv6,
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::IPv4 => "IPv4",
            Self::IPv6 => "IPv6",
        }
    }

    /// Those of a service; pods' addresses of others are none of its endpoints.
    fn of(spec: &ServiceSpec) -> Vec<Self> {
        let named = spec.ip_families.iter().flatten();
        let families: Vec<_> = named.map(|f| if f == "IPv6" { Self::IPv6 } else { Self::IPv4 }).collect();
        if families.is_empty() { vec![Self::IPv4] } else { families }
    }
}

pub(super) async fn reconcile(service: Arc<Service>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    let Some(spec) = &service.spec else { return Ok(Action::await_change()) };
    let selector = spec.selector.as_ref().filter(|s| !s.is_empty());
    let external = spec.type_.as_deref() == Some("ExternalName");
    let (Some(selector), false, None) = (selector, external, &service.metadata.deletion_timestamp) else {
        return Ok(Action::await_change());
    };
    let namespace = service.namespace().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), &namespace);
    let query = selector.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",");
    let pods = pods.list(&ListParams::default().labels(&query)).await?.items;

    let api: Api<EndpointSlice> = Api::namespaced(ctx.client.clone(), &namespace);
    let query = format!("{SERVICE_NAME}={},{}={}", service.name_any(), MANAGED_BY.0, MANAGED_BY.1);
    let existing = api.list(&ListParams::default().labels(&query)).await?.items;
    let mut wanted = contents(&service.name_any(), spec, &pods, &|node| ctx.zone_of(node));
    let labels = labels(&service, spec);

    // A slice keeps its ports for life as far as possible, so that watchers see endpoints change, not slices come and go.
    let mut left = Vec::new();
    for slice in existing {
        let same = |content: &Content| content.ports == slice.ports && content.family.name() == slice.address_type;
        // Of several it is the one that has most in common, so that few endpoints move.
        let shared = |content: &Content| {
            let known = slice.endpoints.iter().flatten();
            let has = |e: &&Endpoint| content.endpoints.iter().flatten().any(|other| other.addresses == e.addresses);
            known.filter(has).count()
        };
        let best = (0..wanted.len()).filter(|at| same(&wanted[*at])).max_by_key(|at| shared(&wanted[*at]));
        match best {
            Some(at) => update(&api, slice, wanted.remove(at), &labels).await?,
            None => left.push(slice),
        }
    }
    for content in wanted {
        let place = left.iter().position(|slice| slice.address_type == content.family.name());
        match place.map(|at| left.swap_remove(at)) {
            Some(slice) => update(&api, slice, content, &labels).await?,
            None => {
                let metadata = ObjectMeta {
                    generate_name: Some(format!("{}-", service.name_any())),
                    namespace: Some(namespace.clone()),
                    labels: Some(labels.clone()),
                    owner_references: Some(vec![controlled_by(service.as_ref())]),
                    ..ObjectMeta::default()
                };
                let slice = EndpointSlice {
                    metadata,
                    address_type: content.family.name().to_owned(),
                    ports: content.ports,
                    endpoints: content.endpoints,
                };
                api.create(&PostParams::default(), &slice).await?;
            }
        }
    }
    for slice in left {
        match api.delete(&slice.name_any(), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Action::await_change())
}

async fn update(
    api: &Api<EndpointSlice>,
    mut slice: EndpointSlice,
    content: Content,
    labels: &BTreeMap<String, String>,
) -> Result<(), kube::Error> {
    let endpoints = in_known_order(slice.endpoints.as_deref().unwrap_or_default(), content.endpoints);
    if slice.ports == content.ports && slice.endpoints == endpoints && slice.labels() == labels {
        return Ok(());
    }
    (slice.ports, slice.endpoints) = (content.ports, endpoints);
    slice.metadata.labels = Some(labels.clone());
    api.replace(&slice.name_any(), &PostParams::default(), &slice).await.map(drop)
}

/// Endpoints stay at their place in the list, new ones follow: a change of one is a small change of the slice.
fn in_known_order(known: &[Endpoint], wanted: Option<Vec<Endpoint>>) -> Option<Vec<Endpoint>> {
    let mut wanted = wanted?;
    let place = |e: &Endpoint| known.iter().position(|k| k.addresses == e.addresses).unwrap_or(usize::MAX);
    wanted.sort_by_key(place);
    Some(wanted)
}

/// What the service's slices should hold. A service nobody serves has one slice of each family with nothing in it.
fn contents(
    service_name: &str,
    spec: &ServiceSpec,
    pods: &[Pod],
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Vec<Content> {
    let mut slices: Vec<Content> = Vec::new();
    for family in Family::of(spec) {
        let before = slices.len();
        for pod in pods.iter().filter(|pod| !is_finished(pod)) {
            let Some(mut endpoint) = endpoint(service_name, spec, pod, family) else { continue };
            endpoint.zone = endpoint.node_name.as_deref().and_then(zone_of);
            let ports: Vec<_> = spec.ports.iter().flatten().filter_map(|port| resolve(port, pod)).collect();
            let ports = Some(ports);
            let room = |slice: &&mut Content| {
                let full = slice.endpoints.as_ref().is_some_and(|e| e.len() >= SLICE_LIMIT);
                slice.family == family && slice.ports == ports && !full
            };
            match slices.iter_mut().find(room) {
                Some(slice) => slice.endpoints.get_or_insert_default().push(endpoint),
                None => slices.push(Content { family, ports, endpoints: Some(vec![endpoint]) }),
            }
        }
        if slices.len() == before {
            slices.push(Content { family, ..Content::default() });
        }
    }
    slices
}

/// The pod's address of a family.
fn address(pod: &Pod, family: Family) -> Option<String> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    listed.into_iter().find(|ip| !ip.is_empty() && ip.contains(':') == (family == Family::IPv6)).cloned()
}

fn endpoint(service_name: &str, spec: &ServiceSpec, pod: &Pod, family: Family) -> Option<Endpoint> {
    let ip = address(pod, family)?;
    let pod_spec = pod.spec.as_ref()?;
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod);
    let always = spec.publish_not_ready_addresses == Some(true);
    let hostname = pod_spec.hostname.clone().filter(|_| pod_spec.subdomain.as_deref() == Some(service_name));
    Some(Endpoint {
        addresses: vec![ip],
        conditions: Some(EndpointConditions {
            ready: Some(always || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname,
        node_name: pod_spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.namespace(),
            name: Some(pod.name_any()),
            uid: pod.uid(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// The pod's number for a service port; `None` when the pod has no port of that name.
fn resolve(port: &ServicePort, pod: &Pod) -> Option<EndpointPort> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            // Native sidecars serve ports too.
            let sidecars =
                spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            let named = ports
                .into_iter()
                .find(|p| p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol);
            named?.container_port
        }
    };
    Some(EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(number),
        protocol: Some(protocol.to_owned()),
        app_protocol: port.app_protocol.clone(),
    })
}

fn labels(service: &Service, spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut labels = service.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), service.name_any());
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    if spec.cluster_ip.as_deref() == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, ip: &str, ready: bool, port: i32) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"nodeName": "local", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}))
        .unwrap()
    }

    fn spec(target: Value) -> ServiceSpec {
        serde_json::from_value(json!({"clusterIP": "10.96.0.7", "selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": target, "protocol": "TCP"}]}))
        .unwrap()
    }

    #[test]
    fn the_conditions_follow_the_pods_life() {
        let of = |pod: Pod| {
            let slices = contents("web", &spec(json!(14001)), &[pod], &|_| None);
            let c = slices[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
            (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
        };
        assert_eq!(of(pod("a", "10.244.0.2", false, 80)), (false, false, false));
        assert_eq!(of(pod("a", "10.244.0.2", true, 80)), (true, true, false));
        let mut leaving = pod("a", "10.244.0.2", true, 80);
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(of(leaving), (false, true, true));
    }

    #[test]
    fn a_named_port_has_a_slice_for_each_number() {
        let pods = [
            pod("a", "10.244.0.2", true, 8080),
            pod("b", "10.244.0.3", true, 9090),
            pod("c", "10.244.0.4", true, 8080),
        ];
        let slices = contents("web", &spec(json!("web")), &pods, &|_| None);
        let shown: Vec<_> = slices
            .iter()
            .map(|s| (s.ports.as_ref().unwrap()[0].port.unwrap(), s.endpoints.as_ref().unwrap().len()))
            .collect();
        assert_eq!(shown, [(8080, 2), (9090, 1)]);
    }

    #[test]
    fn without_pods_that_have_an_address_the_slice_is_empty() {
        let mut starting = pod("a", "", false, 80);
        starting.status.as_mut().unwrap().pod_ip = None;
        assert_eq!(contents("web", &spec(json!(80)), &[starting], &|_| None), [Content::default()]);
    }

    #[test]
    fn each_family_has_slices_of_its_own_and_none_is_too_long() {
        let mut spec = spec(json!(80));
        spec.ip_families = Some(vec!["IPv4".into(), "IPv6".into()]);
        let with_both = |n: usize| {
            let mut pod = pod(&n.to_string(), &format!("10.244.0.{n}"), true, 80);
            let ips = json!([{"ip": format!("10.244.0.{n}")}, {"ip": format!("fd00:10:244::{n:x}")}]);
            pod.status.as_mut().unwrap().pod_ips = serde_json::from_value(ips).unwrap();
            pod
        };
        let pods: Vec<_> = (0..150).map(with_both).collect();
        let slices = contents("web", &spec, &pods, &|node| Some(format!("zone of {node}")));
        let shown: Vec<_> = slices.iter().map(|s| (s.family, s.endpoints.as_ref().unwrap().len())).collect();
        assert_eq!(shown, [(Family::IPv4, 100), (Family::IPv4, 50), (Family::IPv6, 100), (Family::IPv6, 50)]);
        let first = &slices[2].endpoints.as_ref().unwrap()[1];
        assert_eq!((first.addresses[0].as_str(), first.zone.as_deref()), ("fd00:10:244::1", Some("zone of local")));
    }

    #[test]
    fn endpoints_keep_their_place() {
        let slice = |pods: &[Pod]| contents("web", &spec(json!(80)), pods, &|_| None).remove(0).endpoints;
        let (a, b) = (pod("a", "10.244.0.2", true, 80), pod("b", "10.244.0.3", true, 80));
        let known = slice(&[a.clone(), b.clone()]).unwrap();
        assert_eq!(in_known_order(&known, slice(&[b, a])).unwrap(), known);
    }
}
