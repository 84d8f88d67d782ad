//! Who can be reached and how, and what servers allow: settings, workloads, services, endpoints, routes and inbound policies.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use fsm_proxy_config::resource::Resource;
use fsm_proxy_config::{Digest, Kind, ResourceName};

use super::endpoints::EncodedEndpoints;
use crate::catalog::view::{Exchanged, Pod, Slice};
use crate::catalog::{Audience, Catalog, Changed, Delta, Few, ObjectName};
use crate::concern::{Change, Concern, ResourceKey, Resources, Step, Told, message};

/// Every proxy has one of this name.
static WORKLOAD: LazyLock<ResourceName> = LazyLock::new(|| ResourceName::new(Kind::Workload, "workload"));

/// The state machine.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    resources: Resources,
    endpoints: EncodedEndpoints,
}

impl Concern for Routes {
    const NAME: &'static str = "routes";

    fn apply(&mut self, step: &Step<'_>) -> Vec<Change> {
        let (catalog, delta) = (step.catalog, step.delta);
        let mut changes = Vec::new();
        if delta.is_empty() {
            return changes;
        }
        if delta.mesh.is_some() {
            self.settings(catalog, &mut changes);
        }
        let mut stale = Stale::from_delta(catalog, delta);
        for service in &delta.touched {
            self.service(catalog, service, &mut stale, &mut changes);
        }
        for (slice, pod) in &stale.pods {
            self.endpoints.forget_pod(slice, pod);
        }
        for slice in &stale.slices {
            self.endpoints(catalog, slice, &mut changes);
        }
        for pod in &stale.workloads {
            self.workload(catalog, pod, &mut changes);
        }
        self.policy(catalog, delta, &mut changes);
        changes
    }

    fn settle_digest(&mut self) {
        self.resources.settle_digest();
    }

    fn digest(&self) -> Digest {
        self.resources.digest()
    }
}

/// What has to be computed anew.
#[derive(Default)]
struct Stale {
    slices: Few<ObjectName>,
    /// Pods about which something is different, in the slices that they are in.
    pods: Vec<(ObjectName, ObjectName)>,
    workloads: Few<ObjectName>,
}

impl Stale {
    fn from_delta(catalog: &Catalog, delta: &Delta) -> Self {
        let mut stale = Self::default();
        if delta.membership_changed() {
            stale.slices.extend(catalog.slices().keys().cloned());
            catalog.pods().keys().for_each(|pod| stale.pod(catalog, pod));
        }
        for namespace in delta.namespaces.keys() {
            catalog.pods_in(namespace.name()).for_each(|pod| stale.pod(catalog, pod));
        }
        for (name, changed) in delta.pods.iter() {
            let [before, after] =
                [&changed.before, &changed.after].map(|side| side.as_deref().map(Pod::seen_by_others));
            if before == after {
                stale.workloads.insert(name.clone());
            } else {
                stale.pod(catalog, name);
            }
        }
        for (name, changed) in delta.slices.iter() {
            stale.slices.insert(name.clone());
            stale.pods_of(changed);
        }
        stale
    }

    fn pod(&mut self, catalog: &Catalog, pod: &ObjectName) {
        self.workloads.insert(pod.clone());
        // Nobody is told of an endpoint that is not ready, whatever pod is behind it.
        for (name, _) in catalog.slices_of_pod(pod).filter(|(_, slice)| slice.is_ready(pod)) {
            self.slices.insert(name.clone());
            self.pods.push((name.clone(), pod.clone()));
        }
    }

    /// The pods that a changed slice means something else for.
    fn pods_of(&mut self, changed: &Changed<Slice>) {
        let (before, after) = (changed.before.as_deref(), changed.after.as_deref());
        if before.map(|slice| (&slice.ports, &slice.service)) != after.map(|slice| (&slice.ports, &slice.service)) {
            self.workloads.extend(changed.sides().flat_map(Slice::pods).map(|(pod, _)| pod.clone()));
            return;
        }
        let Exchanged { gone, new } = Exchanged::between(before, after);
        for (endpoints, other) in [(gone, after), (new, before)] {
            let pods = endpoints.iter().filter_map(|endpoint| Some((endpoint.pod.as_ref()?, endpoint.zone.as_str())));
            // An endpoint that only is not ready any more is the same for the pod.
            let stays = |pod| other.is_some_and(|slice| slice.pods().any(|its| its == pod));
            self.workloads.extend(pods.filter(|pod| !stays(*pod)).map(|(pod, _)| pod.clone()));
        }
    }
}

impl Routes {
    fn set(&mut self, key: ResourceKey, told: Option<(Resource, Audience)>, changes: &mut Vec<Change>) -> bool {
        let told = told.map(|(resource, audience)| Told { bytes: resource.encode().into(), audience });
        self.resources.set(key, told, changes)
    }

    fn settings(&mut self, catalog: &Catalog, changes: &mut Vec<Change>) {
        let mesh = catalog.mesh();
        let told = (!mesh.started.mesh_name.is_empty())
            .then(|| (Resource::Settings(message::settings(mesh)), Audience::Everyone));
        self.set(ResourceKey::shared(ResourceName::new(Kind::Settings, "settings")), told, changes);
    }

    fn service(&mut self, catalog: &Catalog, name: &ObjectName, stale: &mut Stale, changes: &mut Vec<Change>) {
        let told = catalog.mesh_service(name).map(|service| {
            let message = message::service(name, service, catalog.mesh());
            (Resource::Service(message), catalog.audience_of_service(name))
        });
        let key = key(Kind::Service, name);
        let before = self.resources.get(&key).map(|told| told.bytes.clone());
        if !self.set(key.clone(), told, changes) {
            return;
        }
        let content_changed = self.resources.get(&key).map(|told| told.bytes.clone()) != before;
        for (slice_name, slice) in catalog.slices_of_service(name) {
            stale.slices.insert(slice_name.clone());
            if content_changed {
                stale.workloads.extend(slice.pods().map(|(pod, _)| pod.clone()));
            }
        }
    }

    fn endpoints(&mut self, catalog: &Catalog, name: &ObjectName, changes: &mut Vec<Change>) {
        let told = catalog.slices().get(name).and_then(|slice| {
            let service = catalog.mesh_service(&slice.service)?;
            let audience = self.resources.get(&key(Kind::Service, &slice.service))?.audience.clone();
            Some(Told { bytes: self.endpoints.message(catalog, name, slice, service), audience })
        });
        if told.is_none() {
            self.endpoints.forget(name);
        }
        self.resources.set(key(Kind::Endpoints, name), told, changes);
    }

    fn workload(&mut self, catalog: &Catalog, name: &ObjectName, changes: &mut Vec<Change>) {
        let told = catalog
            .meshed_pod(name)
            .map(|pod| (Resource::Workload(message::workload(catalog, name, pod)), Audience::accounts([])));
        let key = ResourceKey::of(name.clone(), WORKLOAD.clone());
        self.set(key, told, changes);
    }

    fn policy(&mut self, catalog: &Catalog, delta: &Delta, changes: &mut Vec<Change>) {
        if delta.touched.is_empty() && !delta.policy_changed() {
            return;
        }
        let mut targets: BTreeSet<&ObjectName> = delta.targets.keys().collect();
        if delta.membership_changed() {
            targets.extend(catalog.targets().keys());
        }
        for name in targets {
            let told = catalog.targets().get(name).map(|target| {
                let message = message::inbound_policy(catalog.mesh(), target);
                (Resource::InboundPolicy(message), Audience::accounts([target.destination.clone()]))
            });
            self.set(key(Kind::InboundPolicy, name), told, changes);
        }

        let mut groups: BTreeSet<ObjectName> = delta.route_groups.keys().cloned().collect();
        let mut tcp_routes: BTreeSet<ObjectName> = delta.tcp_routes.keys().cloned().collect();
        for target in delta.targets.values().flat_map(Changed::sides) {
            groups.extend(target.route_groups().cloned());
            tcp_routes.extend(target.tcp_routes().cloned());
        }
        groups.extend(delta.splits.values().flat_map(Changed::sides).flat_map(|split| split.route_groups.clone()));
        let splits = delta.touched.iter().flat_map(|service| catalog.splits_over(service));
        groups.extend(splits.flat_map(|(_, split)| split.route_groups.clone()));
        for name in &groups {
            let told = catalog.route_groups().get(name).map(|group| {
                (Resource::RouteGroup(message::route_group(group)), audience_of_route_group(catalog, name))
            });
            self.set(key(Kind::RouteGroup, name), told, changes);
        }
        for name in &tcp_routes {
            let told = catalog.tcp_routes().get(name).map(|route| {
                let targets = catalog.index().targets_by_tcp_route.of(name);
                let audience = targets.filter_map(|name| Some(catalog.targets().get(name)?.destination.clone()));
                (Resource::TcpRoute(message::tcp_route(route)), Audience::accounts(audience))
            });
            self.set(key(Kind::TcpRoute, name), told, changes);
        }
    }
}

/// The servers that allow traffic by it, and the clients that split traffic by it.
fn audience_of_route_group(catalog: &Catalog, name: &ObjectName) -> Audience {
    let targets = catalog.index().targets_by_group.of(name);
    let mut accounts: BTreeSet<ObjectName> =
        targets.filter_map(|name| Some(catalog.targets().get(name)?.destination.clone())).collect();
    for split in catalog.index().splits_by_group.of(name).filter_map(|name| catalog.splits().get(name)) {
        if catalog.mesh_service(&split.apex).is_none() {
            continue;
        }
        match catalog.audience_of_service(&split.apex) {
            Audience::Everyone => return Audience::Everyone,
            Audience::Accounts(clients) => accounts.extend(clients.iter().cloned()),
        }
    }
    Audience::accounts(accounts)
}

fn key(kind: Kind, name: &ObjectName) -> ResourceKey {
    ResourceKey::shared(ResourceName::new(kind, name.shared_text()))
}
