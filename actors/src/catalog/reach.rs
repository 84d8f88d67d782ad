//! Who belongs to the mesh, who may be told about whom, and what a change touches.

use std::collections::BTreeSet;
use std::sync::Arc;

use fsm_api::names;

use super::view::{Account, Pod, Service, Slice, Split};
use super::{Catalog, Delta, Few, ObjectName, Table};

/// Which proxies may be told about something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every proxy of the mesh.
    Everyone,
    /// The proxies of these service accounts.
    Accounts(Arc<BTreeSet<Account>>),
}

impl Audience {
    /// The proxies of these service accounts.
    pub fn accounts(accounts: impl IntoIterator<Item = Account>) -> Self {
        Self::Accounts(Arc::new(accounts.into_iter().collect()))
    }

    /// Whether the proxies of this service account belong to it.
    pub fn contains(&self, account: &Account) -> bool {
        match self {
            Self::Everyone => true,
            Self::Accounts(accounts) => accounts.contains(account),
        }
    }
}

impl Catalog {
    /// Whether a namespace belongs to this mesh.
    pub fn is_monitored(&self, namespace: &str) -> bool {
        self.namespace(namespace).is_some_and(|namespace| self.mesh().monitors(namespace))
    }

    /// A service, if it is part of the mesh.
    pub fn mesh_service(&self, name: &ObjectName) -> Option<&Arc<Service>> {
        let service = self.services().get(name).filter(|service| !service.excluded)?;
        let namespace = self.namespace(name.namespace())?;
        let excluded = namespace
            .annotations
            .get(names::SERVICE_EXCLUSION_LIST)
            .is_some_and(|list| list.split(',').any(|excluded| excluded.trim() == name.name()));
        (self.mesh().monitors(namespace) && !excluded).then_some(service)
    }

    /// A pod, if it has a proxy of this mesh.
    pub fn meshed_pod(&self, name: &ObjectName) -> Option<&Arc<Pod>> {
        self.pods().get(name).filter(|pod| self.is_meshed(name, pod))
    }

    /// Whether a pod of this name has a proxy of this mesh.
    pub fn is_meshed(&self, name: &ObjectName, pod: &Pod) -> bool {
        pod.has_proxy && !pod.finished && self.is_monitored(name.namespace())
    }

    /// Who may be told about a service.
    ///
    /// In permissive mode everyone. Otherwise the sources of the TrafficTargets whose destination is a service account of the
    /// service's pods, or of the pods of a backend of a TrafficSplit over it.
    pub fn audience_of_service(&self, service: &ObjectName) -> Audience {
        if self.mesh().is_permissive() {
            return Audience::Everyone;
        }
        let mut accounts = BTreeSet::new();
        self.add_sources(service, &mut accounts);
        for split in self.index().splits_by_apex.of(service).filter_map(|name| self.splits().get(name)) {
            for (backend, _) in &split.backends {
                self.add_sources(backend, &mut accounts);
            }
        }
        Audience::accounts(accounts)
    }

    fn add_sources(&self, service: &ObjectName, accounts: &mut BTreeSet<Account>) {
        for account in self.index().accounts_of_service(service) {
            let targets = self.index().targets_by_destination.of(account);
            for target in targets.filter_map(|name| self.targets().get(name)) {
                accounts.extend(target.sources.iter().cloned());
            }
        }
    }

    /// The services whose ports, membership or audience a change may have touched.
    pub(super) fn touched_services(&self, delta: &Delta) -> Few<ObjectName> {
        if delta.membership_changed() || delta.permissive_changed() {
            let gone = delta.services.keys().cloned();
            return self.services().keys().cloned().chain(gone).collect();
        }
        if delta.namespaces.is_empty()
            && delta.services.is_empty()
            && delta.regrouped.is_empty()
            && !delta.policy_changed()
        {
            return Few::default();
        }
        let mut touched: Few<ObjectName> = delta.services.keys().cloned().collect();
        for namespace in delta.namespaces.keys() {
            touched.extend(self.services_in(namespace.name()).cloned());
        }
        touched.extend(delta.regrouped.iter().cloned());
        for target in delta.targets.values().flat_map(|changed| changed.sides()) {
            for pod in self.index().pods_by_account.of(&target.destination) {
                touched.extend(self.slices_of_pod(pod).map(|(_, slice)| slice.service.clone()));
            }
        }
        touched.extend(delta.splits.values().flat_map(|changed| changed.sides()).map(|split| split.apex.clone()));
        // Who may be told about a backend may be told about the apex.
        let apexes: Vec<ObjectName> = touched
            .iter()
            .flat_map(|service| self.index().splits_by_backend.of(service))
            .filter_map(|split| Some(self.splits().get(split)?.apex.clone()))
            .collect();
        touched.extend(apexes);
        touched
    }

    /// The EndpointSlices that name a pod.
    pub fn slices_of_pod<'a>(&'a self, pod: &'a ObjectName) -> impl Iterator<Item = (&'a ObjectName, &'a Arc<Slice>)> {
        self.index().slices_by_pod.of(pod).filter_map(|name| Some((name, self.slices().get(name)?)))
    }

    /// The EndpointSlices of a service.
    pub fn slices_of_service<'a>(
        &'a self,
        service: &'a ObjectName,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a Arc<Slice>)> {
        self.index().slices_by_service.of(service).filter_map(|name| Some((name, self.slices().get(name)?)))
    }

    /// The TrafficSplits over a service.
    pub fn splits_over<'a>(
        &'a self,
        service: &'a ObjectName,
    ) -> impl Iterator<Item = (&'a ObjectName, &'a Arc<Split>)> {
        self.index().splits_by_apex.of(service).filter_map(|name| Some((name, self.splits().get(name)?)))
    }

    /// The names of the services in a namespace.
    pub fn services_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ObjectName> {
        in_namespace(self.services(), namespace)
    }

    /// The names of the pods in a namespace.
    pub fn pods_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ObjectName> {
        in_namespace(self.pods(), namespace)
    }
}

/// The names in a namespace, in order.
fn in_namespace<'a, T>(table: &'a Table<T>, namespace: &str) -> impl Iterator<Item = &'a ObjectName> {
    let mark = ObjectName::mark_of_namespace(namespace);
    let from = table.range_where(|name| name.namespace_mark() < mark).map(|(name, _)| name);
    let names = from.take_while(|name| name.namespace_mark() == mark);
    let mut names: Vec<&ObjectName> = names.filter(|name| name.namespace() == namespace).collect();
    names.sort_unstable();
    names.into_iter()
}
